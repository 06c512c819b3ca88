"""Mutants of what readers may see: authorizers, filters, withdrawals, and cursors of tokens that were revoked."""

from mutants.mutant import Mutant

RIGHTS = (
    # What a reader gets of one event.
    Mutant(
        "a filter is asked about what may not be read",
        "D19",
        "_rights.py",
        """            return False
        if self._where is None:
            return True
""",
        """            if self._where is not None:
                self._where(payload)
            return False
        if self._where is None:
            return True
""",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a filter is asked before the authorizer",
        "D19",
        "_rights.py",
        "        if self._authorizer is not None and not is_readable(payload, self._authorizer):",
        """        if self._where is not None and not self._where(payload):
            return False
        if self._authorizer is not None and not is_readable(payload, self._authorizer):""",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a filter says nothing where there is an authorizer",
        "D19",
        "_rights.py",
        "        if self._where is None:\n            return True\n",
        "        if self._where is None or self._authorizer is not None:\n            return True\n",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a filter that would have to be awaited lets everything through",
        "D19",
        "_rights.py",
        "    if isinstance(answer, Awaitable):  # which",
        "    if False:  # which",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a delete is asked about by itself",
        "D19",
        "_rights.py",
        "        if replacement.withdrawn is not event and self.shows(event.payload):",
        "        if self.shows(event.payload):",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "whoever may not see the new payload gets the withdrawal",
        "D19",
        "_rights.py",
        "        return replacement.withdrawn if self.shows(replacement.previous) else None",
        "        return replacement.withdrawn",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "what is hidden goes without a word",
        "D1, D19",
        "_rights.py",
        "        return replacement.withdrawn if self.shows(replacement.previous) else None",
        """        is_delete = replacement.withdrawn is event
        return event if is_delete and self.shows(replacement.previous) else None""",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "what was there is withdrawn although the new payload is shown",
        "D1, D19",
        "_rights.py",
        "        if replacement.withdrawn is not event and self.shows(event.payload):",
        """        if self.shows(replacement.previous):
            return replacement.withdrawn
        if replacement.withdrawn is not event and self.shows(event.payload):""",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "of what was there only the authorizer is asked",
        "D19",
        "_rights.py",
        "        return replacement.withdrawn if self.shows(replacement.previous) else None",
        """        may_read = self._authorizer is None or is_readable(replacement.previous, self._authorizer)
        return replacement.withdrawn if may_read else None""",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a withdrawal is asked about too",
        "D1, D19",
        "_rights.py",
        "        return replacement.withdrawn if self.shows(replacement.previous) else None",
        """        gone = replacement.withdrawn
        return gone if self.shows(replacement.previous) and self.shows(gone.payload) else None""",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a withdrawal has no mark",
        "D7, D24",
        "_rights.py",
        "Event(event.topic, event.index, gone, mark=event.mark)",
        "Event(event.topic, event.index, gone)",
        ("test_withdrawal.py",),
    ),
    # Of a batch.
    Mutant(
        "in a batch nothing is withdrawn",
        "D1, D19",
        "_rights.py",
        "        replacements = [replaced.get(id(each)) for each in batch]",
        "        replacements = [None for _ in batch]",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "what a batch replaces is looked up while others are asked",
        "D1, D19",
        "_rights.py",
        """        replacements = [replaced.get(id(each)) for each in batch]
        shown = list(map(self._of_one, batch, replacements))""",
        "        shown = [self._of_one(each, replaced.get(id(each))) for each in batch]",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a batch of one is no batch",
        "D4",
        "_rights.py",
        "        return Event(event.topic, event.index, PayloadEvents(items), mark=event.mark)",
        """        if len(items) == 1:
            return items[0]
        return Event(event.topic, event.index, PayloadEvents(items), mark=event.mark)""",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a batch is copied for each reader with rights",
        "D10",
        "_rights.py",
        "        if all(mine is its for mine, its in zip(shown, batch, strict=True)):",
        "        if False:",
        ("test_permission.py", "test_withdrawal.py"),
    ),
    Mutant(
        "what a conflated delivery replaces is looked up while others are asked",
        "D1, D19",
        "_conflation.py",
        "        replaced = {id(each): replaced[id(each)] for each in events if id(each) in replaced}\n",
        "",
        ("test_withdrawal.py",),
    ),
    # What is replaced: who says so, who knows it, and for how long.
    Mutant(
        "what was replaced is handed out",
        "D19",
        "_commit.py",
        "    return Replacement(Event(event.topic, event.index, event.payload, mark=event.mark), previous)",
        "    return Replacement(event, previous)",
        ("test_previous.py",),
    ),
    Mutant(
        "what replaces something loses its mark",
        "D7, D24",
        "_commit.py",
        "    return Replacement(Event(event.topic, event.index, event.payload, mark=event.mark), previous)",
        "    return Replacement(Event(event.topic, event.index, event.payload), previous)",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "an event may replace what is of another subject",
        "D18, D19",
        "_commit.py",
        "    if subject != before:",
        "    if False:",
        ("test_previous.py",),
    ),
    Mutant(
        "an event may replace what cannot be withdrawn",
        "D18, D19",
        "_commit.py",
        '    if not callable(getattr(type(previous), "withdrawn", None)):',
        "    if False:",
        ("test_previous.py",),
    ),
    Mutant(
        "what a commit replaces is not remembered",
        "D1, D19",
        "_publisher.py",
        "            self._feeds.replace(replacements)\n",
        "",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "what was replaced is never forgotten",
        "D11",
        "_topic.py",
        "                self.replaced.pop(id(event), None)",
        "                pass",
        ("test_previous.py",),
    ),
    Mutant(
        "a union knows what was replaced in one of its topics",
        "D1, D19, D22",
        "_feeds.py",
        "replaced[0] if len(replaced) == 1 else ChainMap(*replaced)",
        "replaced[0]",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a snapshot does not know what its changes replace",
        "D1, D19",
        "_handlers.py",
        "        self._snapshot.replace(replacements)\n",
        "",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a reader looks for what is replaced in its live feed only",
        "D1, D19",
        "_reader.py",
        "            shown = rights.shown(event, self._source.replaced)",
        "            shown = rights.shown(event, self._feed.replaced)",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a snapshot keeps what its changes replace when it is emptied",
        "D11",
        "_passages.py",
        "        self.parking.release(snapshot.forget_replaced())\n",
        "",
        ("test_previous.py",),
    ),
    Mutant(
        "a union is composed without what its changes replace",
        "D1, D19, D22",
        "_compose.py",
        "                await self._put(state, found(state, replaced))",
        "                await self._put(state, ())",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "what brings the parts of a union to one index replaces nothing",
        "D1, D19, D22",
        "_compose.py",
        "            await self._put(some, found(some, [part._feed.replaced]))",
        "            await self._put(some, ())",
        ("test_withdrawal.py",),
    ),
    Mutant(
        "a union forgets what the snapshots of its parts replace",
        "D1, D19, D22",
        "_compose.py",
        "                replaced = [part._source.replaced, part._feed.replaced]",
        "                replaced = [part._feed.replaced]",
        ("test_withdrawal.py",),
    ),
    # Cursors of tokens that were revoked.
    Mutant(
        "a cursor at the index of the revocation is good",
        "D20",
        "_tokens.py",
        "index <= indexes.get(str.__hash__(token), -1)",
        "index < indexes.get(str.__hash__(token), -1)",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "a revocation is one of every token",
        "D7, D20",
        "_tokens.py",
        "index <= indexes.get(str.__hash__(token), -1)",
        "index <= max(indexes.values())",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "a cursor at the floor of what is forgotten is good",
        "D20",
        "_tokens.py",
        "        return index <= self._floor or ",
        "        return index < self._floor or ",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "a revocation that is forgotten leaves no floor",
        "D20",
        "_tokens.py",
        "            self._floor = indexes.pop(digest)",
        "            indexes.pop(digest)",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "tokens that are too many for one call are not revoked",
        "D20",
        "_tokens.py",
        "            self._floor = index\n",
        "",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "what is revoked again is forgotten as soon as before",
        "D20",
        "_tokens.py",
        "            indexes.pop(digest, None)\n",
        "",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "revocations are remembered without end",
        "D11",
        "_tokens.py",
        "len(indexes) - MOST_REVOKED)",
        "0)",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "a token that nobody uses is not revoked",
        "D20",
        "_publisher.py",
        "        self._timeline.revocations.add(tokens, max(index, farthest))\n",
        "        used = {each.request.token for each in self._subscriptions.all()}\n"
        "        self._timeline.revocations.add(used & set(tokens), max(index, farthest))\n",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "a cursor that was ahead when its token was revoked is good",
        "D20",
        "_publisher.py",
        "revocations.add(tokens, max(index, farthest))",
        "revocations.add(tokens, index)",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "a replay that was ahead is not remembered",
        "D7, D20",
        "_replays.py",
        "                    history.farthest = max(history.farthest, sequel.at)",
        "                    pass",
        ("test_refresh_floor.py", "test_revoked_cursors.py"),
    ),
    Mutant(
        "a conflated delete may be of what was never shown",
        "D19",
        "_rights.py",
        "(after is before or self.shows(after.previous))",
        "True",
        ("test_conflation_rights.py",),
    ),
    Mutant(
        "a close event in a commit counts from the commit before",
        "D20",
        "_publisher.py",
        "self.index if next_index is None else next_index",
        "self.index",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "a commit that is refused revokes",
        "D18, D20",
        "_publisher.py",
        "        next_index = self._next_index(commit, index, ends=bool(ending))\n",
        "        if closing:\n"
        "            self._revoke(closing, self.index)\n"
        "        next_index = self._next_index(commit, index, ends=bool(ending))\n",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "a cursor with the right mark is good whoever was revoked",
        "D20, D24",
        "_course.py",
        "timeline.revocations.has(request.token, index)",
        "(not request.mark and timeline.revocations.has(request.token, index))",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "revocations of one epoch hold in the next",
        "D7, D20",
        "_timeline.py",
        "            self.revocations.clear()\n",
        "",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "a refresh forgets who was revoked",
        "D20",
        "_timeline.py",
        """            self._marks.clear()
            self.revocations.clear()
""",
        """            self._marks.clear()
        self.revocations.clear()
""",
        ("test_revoked_cursors.py",),
    ),
    Mutant(
        "the floor of one epoch holds in the next",
        "D7, D20",
        "_tokens.py",
        "        self._floor = 0\n        self._indexes.clear()",
        "        self._indexes.clear()",
        ("test_revoked_cursors.py",),
    ),
)
