"""Mutants of what lasts: the SQLite store, the publisher that it feeds, and the command that follows one."""

from mutants.mutant import Mutant

DURABLE = (
    Mutant(
        "an older copy of the file is followed",
        "etcd #20221, #15271",
        "stores/_sqlite_database.py",
        "        return anchor.index > row.index or self._mark(connection, row, anchor.index) != anchor.mark",
        "        return False",
        ("stores/test_replacement.py",),
    ),
    Mutant(
        "a copy that has gone on elsewhere is taken for the same",
        "etcd #20221, #15271",
        "stores/_sqlite_database.py",
        " or self._mark(connection, row, anchor.index) != anchor.mark",
        "",
        ("stores/test_replacement.py", "faults/test_older_copies.py"),
    ),
    Mutant(
        "the log is compacted past a reader without a word",
        "etcd #17529",
        "stores/_sqlite_database.py",
        "        if epoch not in {None, row.epoch} or after < row.floor:",
        "        if epoch not in {None, row.epoch}:",
        ("stores/test_changes.py",),
    ),
    Mutant(
        "a gap in the log is passed over",
        "D6",
        "stores/_sqlite_database.py",
        "            if index != after + 1:",
        "            if False:",
        ("stores/test_changes.py",),
    ),
    Mutant(
        "an expectation is not looked at",
        "D18",
        "stores/_sqlite_database.py",
        "        if actual != expected:",
        "        if False:",
        ("stores/test_commits.py",),
    ),
    Mutant(
        "an expectation is looked at too late",
        "D4",
        "stores/_sqlite_database.py",
        '            connection.execute("BEGIN IMMEDIATE")\n'
        "            row = self._rejoin(connection, anchor)\n"
        "            _check_expected(connection, expect)\n",
        "            _check_expected(connection, expect)\n"
        '            connection.execute("BEGIN IMMEDIATE")\n'
        "            row = self._rejoin(connection, anchor)\n"
        "            connection.execute('COMMIT')\n",
        ("stores/test_commits.py", "stores/test_cancellation.py", "stores/test_processes.py"),
    ),
    Mutant(
        "a native cancel loses rows of a scan",
        "anyio: a memory stream under Task.cancel()",
        "stores/_sqlite_scan.py",
        "            rows = await self._run(partial(self._scan.page, self._received))\n"
        "            self._received += 1\n",
        "            self._received += 1\n"
        "            rows = await self._run(partial(self._scan.page, self._received - 1))\n",
        ("stores/test_cancellation.py",),
    ),
    Mutant(
        "a page that a slow reader has yet to read is overwritten",
        "D5",
        "stores/_spool.py",
        "            received = [self._pages.popleft() for _ in range(number - self._first)]\n",
        "            received = [self._pages.popleft() for _ in range(number - self._first)] + [self._pages[0]]\n",
        ("stores/test_slow_readers.py",),
    ),
    Mutant(
        "a scan keeps its place among those that copy while its reader is slow",
        "D10",
        "stores/_sqlite_scan.py",
        "            reader.announce()\n        place.close()\n",
        "            reader.announce()\n",
        ("stores/test_slow_readers.py",),
    ),
    Mutant(
        "an error of the copy is taken for the end of the rows",
        "D6",
        "stores/_sqlite_scan.py",
        "        if self._scan.failure is not None:\n",
        "        if False:\n",
        ("stores/test_slow_readers.py",),
    ),
    Mutant(
        "a native cancel leaves a store open",
        "D13",
        "stores/sqlite.py",
        "                    cancellation = error\n",
        "                    raise error\n",
        ("stores/test_cancellation.py",),
    ),
    Mutant(
        "a step of the changes loses commits when it is cancelled",
        "D12",
        "stores/sqlite.py",
        "                _, commits = await self._run(partial(self._database.read_log, after, epoch))\n",
        "                _, commits = await self._run(partial(self._database.read_log, after, epoch))\n"
        "                after = commits[-1].index if commits else after\n"
        "                await anyio.lowlevel.checkpoint()\n",
        ("stores/test_cancellation.py",),
    ),
    Mutant(
        "a snapshot of another timeline is taken",
        "etcd #20221, #15271",
        "stores/_feed.py",
        "        if head.epoch != epoch or index < published:",
        "        if False:",
        ("stores/test_store_publisher_trouble.py",),
    ),
    Mutant(
        "a store that was replaced is followed as if it were the same",
        "Consul #20642",
        "stores/_feed.py",
        "        self._publisher.refresh(index=_first_index(head, self._history), epoch=head.epoch)\n",
        "        pass\n",
        ("stores/test_store_publisher.py", "stores/test_store_publisher_trouble.py"),
    ),
    Mutant(
        "a store that fails for a while takes its publisher down",
        "broadcaster #144: a dead source left them hanging",
        "stores/_feed.py",
        "                if not self._is_started:\n                    raise\n",
        "                raise\n",
        ("stores/test_store_publisher_trouble.py",),
    ),
    Mutant(
        "a commit about other topics is in the way",
        "D3",
        "stores/_feed.py",
        "            if operation.topic in self._topics\n",
        "",
        ("stores/test_store_publisher.py",),
    ),
    Mutant(
        "the cursor of a watch is ahead of what it has written",
        "D12",
        "cli/_watch.py",
        '            await self._output.write("".join(lines))\n'
        "            self.cursor = reached if is_live else None\n",
        "            self.cursor = reached if is_live else None\n"
        '            await self._output.write("".join(lines))\n',
        ("sweep/test_watch.py",),
    ),
    Mutant(
        "a watch may be resumed inside a snapshot",
        "D7",
        "cli/_watch.py",
        "            self.cursor = reached if is_live else None\n",
        "            self.cursor = reached\n",
        ("sweep/test_watch.py",),
    ),
)
