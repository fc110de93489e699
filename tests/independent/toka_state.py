"""The state of a session: rows, what is derived from them, and the digest."""

from toka_caps import canonical
from toka_wire import ZERO32, derive, pack, u16, u32

SESSION, PRINCIPAL, KEY, GRANT, METER, TOOL, AGENT, TASK, MAILBOX, CALL, NONCE, REFUSALS, LISTED = \
    1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 14, 15, 17
EMPTY = b""
MAX_U64 = 2**64 - 1


def amount(amounts, index):
    return amounts[index] if index < len(amounts) else 0


def trimmed(values):
    """Amounts as they are written: without trailing zeros."""
    values = list(values)
    while values and values[-1] == 0:
        values.pop()
    return values


def added(left, right):
    """A sum of amounts; where nothing limits it, it stays at 2^64 − 1."""
    return trimmed(min(MAX_U64, amount(left, i) + amount(right, i)) for i in range(7))


def taken(left, right):
    return trimmed(max(0, amount(left, i) - amount(right, i)) for i in range(7))


class State:
    def __init__(self):
        self.tables = {table: {} for table in (1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 14, 15, 17)}
        self.commits = 0
        self.age = {}  # grant → its place in the order of creation
        self.open_calls = self.doubts = 0  # calls that are open, and that are in doubt
        self._leaves, self._dirty = {}, set()

    # Rows are changed only by these three, so that the digest knows which leaves are stale.

    def get(self, table, key):
        return self.tables[table].get(key)

    def put(self, table, key, row):
        self.tables[table][key] = row
        self._dirty.add((table, key))

    def change(self, table, key, **fields):
        row = self.tables[table][key]
        row.update(fields)
        self._dirty.add((table, key))

    def remove(self, table, key):
        if self.tables[table].pop(key, None) is not None:
            self._dirty.add((table, key))

    def add_to(self, table, key, field, by):
        self.change(table, key, **{field: max(0, self.tables[table][key][field] + by)})

    # --- grants -----------------------------------------------------------------------------------------------------

    def cap(self, grant):
        return canonical(self.get(GRANT, grant)["grnt"]["cap"])

    def chain(self, grant):
        """The grant and those above it, up to its root."""
        found = []
        while grant is not None:
            found.append(grant)
            grant = self.get(GRANT, grant)["grnt"]["par"]
        return found

    def union(self, grants):
        """Every grant on the chains of these, oldest first."""
        return sorted({node for grant in grants for node in self.chain(grant)}, key=self.age.get)

    def add_grant(self, grant, record):
        self.age[grant] = len(self.age)
        self.put(GRANT, grant, {"grnt": record, "rvk": False})
        self.put(METER, grant, {"spnt": [], "rsvd": [], "tat": 0, "chld": 0, "live": 0, "flgt": 0})
        if record["par"] is not None:
            self.add_to(METER, record["par"], "chld", 1)

    def reserve(self, nodes, amounts, spent=False):
        field = "spnt" if spent else "rsvd"
        for node in nodes:
            self.change(METER, node, **{field: added(self.get(METER, node)[field], amounts)})

    def release(self, nodes, amounts):
        for node in nodes:
            self.change(METER, node, rsvd=taken(self.get(METER, node)["rsvd"], amounts))

    # --- principals and agents --------------------------------------------------------------------------------------

    def alive(self, principal):
        row = self.get(PRINCIPAL, principal)
        return row is not None and row["aliv"]

    def above(self, agent):
        """The agents above an agent, the nearest first."""
        row = self.get(AGENT, agent)
        while row and self.get(AGENT, row["par"]):
            yield row["par"]
            row = self.get(AGENT, row["par"])

    def held(self, agent):
        """Why an agent does nothing new: it or one above it is paused or stopping, or has a call in doubt."""
        for node in (agent, *self.above(agent)):
            row = self.get(AGENT, node)
            if row["stat"] in (3, 4):
                return "paused" if row["stat"] == 3 else "stopping"
            if row["dubt"]:
                return "an outcome is in doubt"
        return None

    def from_above(self, asker, agent):
        """Whether the asker spawned the agent, or one above it."""
        return self.get(AGENT, agent) is not None and any(
            self.get(AGENT, node)["par"] == asker for node in (agent, *self.above(agent)))

    # --- digest -----------------------------------------------------------------------------------------------------

    def digest(self):
        """The state digest and the number of leaves under it."""
        for table, key in self._dirty:
            row = self.tables[table].get(key)
            if row is None:
                self._leaves.pop((table, key), None)
            else:
                path = derive("state-path", u16(table), key)
                leaf = derive("state-leaf", u16(table), u32(len(key)), key, pack(row))
                self._leaves[(table, key)] = (path, leaf)
        self._dirty.clear()
        leaves = sorted(self._leaves.values())
        return tree(leaves, 0, len(leaves), 0), len(leaves)


def tree(leaves, start, end, depth):
    """The digest of sorted leaves [start, end), which agree in the first `depth` bits of their paths."""
    if end - start == 0:
        return ZERO32
    if end - start == 1:
        return leaves[start][1]
    low, high = start, end  # the first leaf whose bit `depth` is set
    while low < high:
        middle = (low + high) // 2
        if leaves[middle][0][depth // 8] >> (7 - depth % 8) & 1:
            high = middle
        else:
            low = middle + 1
    if low in (start, end):
        return tree(leaves, start, end, depth + 1)
    return derive("state-node", tree(leaves, start, low, depth + 1), tree(leaves, low, end, depth + 1))
