"""An independent verifier of Toka bundles, written from docs/FORMAT.md and docs/AUTHORITY.md.

    python3 verify.py FILE.tkb [--root-key VKEY | --root-key-file FILE] [--require LIST] [--json]

Exit codes: 0 all that is required holds, 3 tampered with or against the rules, 8 unreadable, 4 something required
could not be checked, 2 wrong arguments, 1 another failure. It reads the file once for its frame, once for its entries
and once for its blobs; memory grows with the state of a session and not with its entries.
"""

import argparse
import json
import sqlite3
import sys

from toka_facts import MAX_ARGUMENTS, ArgumentError, extract
from toka_rules import Rules
from toka_schema import CALL, CLOSE, EVENTS, GENESIS, OPEN_SESSION, STRUCTURES, decode_body, fields, split_type
from toka_wire import (BLOBS, ENTRIES, MANIFEST, MAX_MANIFEST, MAX_TIME, ZERO32, Bundle, Finding, KeyGrant, Unreadable,
                       check_signature, derive, grains, hasher, key_id, pack, parse_root_key, read_entry, u16, u64,
                       unpack)

AXES = ("frame", "chain", "signatures", "keys", "commands", "legality", "state", "blobs", "tail")
AXIS_OF = {
    "frame": "UNKNOWN_VERSION RESERVED_BITS LIMIT_EXCEEDED FRAME_TRUNCATED BUNDLE_MALFORMED BUNDLE_TRAILER "
             "MANIFEST_MISMATCH RANGE_INCOMPLETE",
    "keys": "KEY_NOT_GRANTED KEY_WRONG_ROLE KEY_EPOCH_EXPIRED KEY_EPOCH_FUTURE KEY_OUT_OF_WINDOW ROOT_MISMATCH "
            "KEY_GRANT_INVALID KEY_ORIGIN_MISMATCH KEY_WEAK KEY_NON_CANONICAL KEY_ALGORITHM_UNKNOWN ROOT_NOT_GIVEN",
    "signatures": "SUITE_DOWNGRADE SIG_INVALID SIG_NON_CANONICAL SIG_MISSING",
    "commands": "COMMAND_UNSIGNED COMMAND_SIG_INVALID COMMAND_AUDIENCE COMMAND_EXPIRED COMMAND_REPLAYED "
                "COMMAND_MISMATCH",
    "legality": "TRANSITION_ILLEGAL FACTS_MISMATCH KIND_UNKNOWN SCHEMA_UNKNOWN RULES_UNKNOWN",
    "state": "STATE_DIVERGED",
    "blobs": "BLOB_MISSING_UNAUTHORISED BLOB_MISMATCH BLOB_OMITTED",
    "tail": "TRUNCATION_NOT_EXCLUDED",
}
MAX_FINDINGS, MAX_BLOB = 1_000, 64 << 20
CODE_AXIS = {code: axis for axis, codes in AXIS_OF.items() for code in codes.split()}
CHECKS = (
    "frame of the file and of every entry, reserved bits, bounds",
    "digest in the trailer, manifest against the content",
    "session, seq, link, time and causes of every entry",
    "key grants of the genesis: form, origin, root key, signature; role, epoch and window of every signing key",
    "strict signature of every entry, and of every signed command",
    "body hash, canonical body, bounds of every field, order of blobs",
    "every command decided again: refusals with all they say, events with all that is filled in",
    "the state digest and number of leaves at every commitment",
    "commitment and size of every blob; every tool against its spec, the facts of every call against its arguments",
    "entries of other sessions that are cited, where the bundle holds them",
)
NOT_CHECKS = (
    "the rest of a tool spec: it has the right digest, and nothing else of it is read",
    "the digest of an agent spec and of the kind registry",
    "proofs, checkpoints, anchors and freshness",
)


class Report:
    """Findings, what each axis came to, and what was counted."""

    def __init__(self, path):
        self.path, self.findings = path, []
        self.counts = {"entries": 0, "signatures": 0, "decided": 0, "commitments": 0, "blobs": 0, "signed_commands": 0}
        self.sessions = []
        self.axes = dict.fromkeys(AXES, "OK")
        self.classes, self.more = set(), 0  # classes of all findings; how many findings are counted and not listed

    def add(self, code, class_="FAIL", axis=None, session=None, seq=None, offset=None, field=None, detail=None):
        axis = axis or CODE_AXIS.get(code, "chain")
        self.classes.add(class_)
        if len(self.findings) >= MAX_FINDINGS:
            self.more += 1
        else:
            self.findings.append({"code": code, "class": class_, "axis": axis, "session": session and session.hex(),
                                  "seq": seq, "byte_offset": offset, "field": field, "detail": detail})
        rank = ("OK", "NOT_CHECKED", "UNREADABLE", "FAIL")
        if class_ in rank and rank.index(class_) > rank.index(self.axes[axis]):
            self.axes[axis] = class_

    def exit_code(self, required):
        if "FAIL" in self.classes:
            return 3
        if "UNREADABLE" in self.classes:
            return 8
        return 4 if any(self.axes[axis] != "OK" for axis in required) else 0


class Store:
    """What must be remembered of entries until the end of the file: a temporary database on disk."""

    def __init__(self):
        self.db = sqlite3.connect("")
        self.db.executescript("""
            PRAGMA cache_size = -8192; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;
            CREATE TABLE entry(session BLOB, seq INTEGER, hash BLOB, PRIMARY KEY(session, seq)) WITHOUT ROWID;
            CREATE TABLE cited(session BLOB, seq INTEGER, hash BLOB, by BLOB, at INTEGER, offset INTEGER);
            CREATE TABLE blob(place INTEGER PRIMARY KEY, session BLOB, commitment BLOB, grains INTEGER, at INTEGER,
                              offset INTEGER, present INTEGER, UNIQUE(session, commitment));
            CREATE TABLE spec(session BLOB, commitment BLOB, digest BLOB, at INTEGER, offset INTEGER,
                              PRIMARY KEY(session, commitment, digest)) WITHOUT ROWID;
        """)

    def all(self, query, *values):
        return self.db.execute(query, values)

    def one(self, query, *values):
        return self.db.execute(query, values).fetchone()


class Session:
    """One section of entries, checked entry by entry."""

    def __init__(self, report, store, window, root, session, first, is_cut):
        self.report, self.store, self.window, self.root = report, store, window, root
        self.id, self.seq, self.first = session, first, first
        self.prev = self.time = self.body = self.last_seq = None
        self.grants, self.rules, self.epoch, self.tools = {}, None, None, {}
        self.stopped = first or None  # the seq from which on nothing is decided again
        self.closed = self.failed = self.system = False
        self.whole, self.count, self.head = True, 0, None
        self.roots, self.registered = None, {}
        self.is_cut = is_cut

    def run(self):
        """Read entries to the end of the section. Behind the first bad one only what headers say is used."""
        while self.window.left():
            offset = self.window.at
            try:
                entry = read_entry(self.window.take, offset, self.seq)
                if entry.magic != b"TKE1" and self.seq == 0 and not self.count:
                    self.report.add("INPUT_UNREADABLE", "UNREADABLE", "frame", session=self.id, seq=self.seq,
                                    offset=offset, detail="no entry")
                    self.whole, self.failed = False, True
                    return
            except (Unreadable, Finding) as error:
                self.whole = False
                self.seq = self.seq if self.count else 0  # no entry here says that the section begins elsewhere
                if not self.failed and (isinstance(error, Finding) or not self.is_cut):
                    self.fail(error if isinstance(error, Finding) else
                              Finding("FRAME_TRUNCATED", "body_len", str(error)), offset)
                self.failed = True
                return
            self.count += 1
            try:
                if not self.failed:
                    self.entry(entry)
            except Finding as finding:
                self.fail(finding, offset)
            self.remember(entry, self.body)
            self.body = None
            self.seq += 1
            self.head = {"hash": entry.hash, "time_us": entry.time, "kind": entry.kind}
            self.closed = self.closed or (not self.failed and entry.kind == CLOSE)
            self.last_seq = entry.seq

    def fail(self, finding, offset):
        self.failed = True
        self.stopped = self.seq if self.stopped is None else self.stopped
        self.note(finding, offset)

    def note(self, finding, offset):
        self.report.add(finding.code, finding.class_, session=self.id, seq=self.seq, offset=offset,
                        field=finding.field, detail=finding.detail)

    def entry(self, entry):
        """The rules about one entry, in the order of the page."""
        self.check_head(entry)
        genesis = self.seq == 0
        body = used = None
        if genesis:
            self.check_genesis_head(entry)
            body, used = self.decode(entry)
            self.admit_keys(body)
        self.check_signer(entry)
        if not genesis:
            if self.prev is not None:
                self.check_link(entry)
            body, used = self.decode(entry)
        if self.closed:
            raise Finding("AFTER_CLOSE", "seq")
        self.report.counts["entries"] += 1
        self.prev, self.time = entry.hash, entry.time
        if body is None or self.stopped is not None:
            return
        try:
            if genesis:
                if body["rul"] != 1:
                    raise Finding("RULES_UNKNOWN", "rul", body["rul"])
                self.rules = Rules(entry.hash)
                self.rules.open(entry, body, self.grants)
                self.system = body["cls"] == 1
                self.roots = pack([grant["cap"] for grant in body["grnt"]])
            else:
                self.decide(entry, body, used)
            self.body = body
        except Finding as finding:
            self.stopped, self.rules = self.seq, None
            self.note(finding, entry.offset)

    def check_head(self, entry):
        if entry.magic != b"TKE1":
            raise Finding("UNKNOWN_VERSION", "magic", entry.magic.hex())
        if entry.flags & ~1 or entry.reserved:
            raise Finding("RESERVED_BITS", "flags" if entry.flags & ~1 else "reserved")
        if entry.time > MAX_TIME:
            raise Finding("LIMIT_EXCEEDED", "time_us")
        if entry.suite != 1:
            raise Finding("SUITE_DOWNGRADE", "suite", entry.suite)
        if entry.kind == GENESIS and self.seq:
            raise Finding("GENESIS_DUPLICATE", "kind")
        if self.seq and entry.session != self.id:
            raise Finding("SESSION_ID_MISMATCH", "session", entry.session.hex())
        if entry.seq != self.seq:
            raise Finding("SEQ_GAP" if entry.seq > self.seq else "SEQ_ORDER", "seq", entry.seq)

    def check_genesis_head(self, entry):
        for field, good in (("kind", entry.kind == GENESIS), ("body_schema", entry.schema == 1),
                            ("flags", entry.flags == 0), ("n_causes", not entry.causes),
                            ("session", entry.session == ZERO32), ("prev", entry.prev == ZERO32),
                            ("principal", entry.principal == ZERO32), ("hash", entry.hash == self.id)):
            if not good:
                # Bytes that were changed give the genesis another hash, too: what explains it goes first.
                if field == "hash" and entry.body_hash != self.body_hash(entry):
                    raise Finding("BODY_HASH_MISMATCH", "body_hash")
                if field == "hash":
                    continue
                raise Finding("GENESIS_INVALID", field)

    @staticmethod
    def body_hash(entry):
        return derive("body", u16(entry.kind), u16(entry.schema), entry.body)

    def decode(self, entry):
        if self.body_hash(entry) != entry.body_hash:
            raise Finding("BODY_HASH_MISMATCH", "body_hash")
        try:
            return decode_body(entry.kind, entry.schema, entry.body, len(entry.blobs))
        except Finding as finding:
            if finding.class_ == "FAIL" or self.seq == 0:
                raise
            if self.stopped is None:
                self.stopped, self.rules = self.seq, None
                self.note(finding, entry.offset)
            return None, 0

    def admit_keys(self, body):
        """The key grants of the genesis: each is checked before any key is used."""
        root_id = None
        if self.root:
            root_id = key_id(self.root[0])
            if body["root"] != root_id:
                raise Finding("ROOT_MISMATCH", "root", body["root"].hex())
        if not 1 <= len(body["org"].encode()) <= 255:
            raise Finding("GENESIS_INVALID", "org")
        for record in body["keys"]:
            grant = KeyGrant(record)
            if grant.root != body["root"]:
                raise Finding("ROOT_MISMATCH", "keys", grant.root.hex())
            if grant.origin != body["org"]:
                raise Finding("KEY_ORIGIN_MISMATCH", "keys", grant.origin)
            if self.root:
                try:
                    check_signature(self.root[0], "toka-key-grant-sig-v1", derive("key-grant", grant.signed),
                                    grant.signature)
                except Finding as finding:
                    raise Finding("KEY_GRANT_INVALID", "keys", finding.code) from None
            if grant.id in self.grants:
                raise Finding("KEY_WRONG_ROLE", "keys", "a key is granted twice")
            self.grants[grant.id] = grant

    def check_signer(self, entry):
        if self.first:  # without the genesis nobody knows the keys
            return
        if self.seq == 0:
            self.epoch = entry.epoch
        grant = self.grants.get(entry.signer)
        if grant is None:
            raise Finding("KEY_NOT_GRANTED", "signer", entry.signer.hex())
        if grant.role != 1:
            raise Finding("KEY_WRONG_ROLE", "signer", grant.role)
        for epoch in (entry.epoch, grant.epoch):
            if epoch != self.epoch:
                raise Finding("KEY_EPOCH_EXPIRED" if epoch < self.epoch else "KEY_EPOCH_FUTURE", "key_epoch", epoch)
        if not grant.not_before <= entry.time < grant.not_after:
            raise Finding("KEY_OUT_OF_WINDOW", "time_us")
        check_signature(grant.public, "toka-entry-sig-v1", derive("header", entry.header), entry.signature)
        self.report.counts["signatures"] += 1
        if self.seq == 0 and entry.hash != self.id:
            raise Finding("GENESIS_INVALID", "hash", "the section names another session")

    def check_link(self, entry):
        if entry.prev != self.prev:
            raise Finding("LINK_MISMATCH", "prev", entry.prev.hex())
        if entry.time < self.time or (entry.flags & 1 and entry.time != self.time):
            raise Finding("TIME_REGRESSION", "time_us", entry.time)
        if any(cause >= entry.seq for cause in entry.causes) or sorted(set(entry.causes)) != entry.causes:
            raise Finding("CAUSE_INVALID", "causes")

    def decide(self, entry, body, used):
        if entry.kind == 2:
            digest, leaves = self.rules.state.digest()
            if (body["dig"], body["leaf"], body["upto"]) != (digest, leaves, entry.seq - 1):
                raise Finding("STATE_DIVERGED", "body.dig", f"the state here is {digest.hex()} of {leaves} leaves")
            self.report.counts["commitments"] += 1
        self.rules.check(entry, body, used, self.grants)
        self.report.counts["decided"] += 1

    def remember(self, entry, body):
        """Keep for the end: the hash, the blobs, and what is cited of other sessions."""
        place = min(self.seq, 2**63 - 1)  # what the database can hold; no file has so many entries
        db, where = self.store.db, (self.id, place, entry.offset)
        if not self.failed:
            db.execute("INSERT INTO entry VALUES (?, ?, ?)", (self.id, place, entry.hash))
        for size, commitment in entry.blobs:
            known = self.store.one("SELECT grains FROM blob WHERE session = ? AND commitment = ?", self.id, commitment)
            if known is None:
                db.execute("INSERT INTO blob VALUES (NULL, ?, ?, ?, ?, ?, 0)",
                           (self.id, commitment, size, place, entry.offset))
            elif known[0] != size:
                self.note(Finding("BLOB_MISMATCH", "blobs", "one commitment with two sizes"), entry.offset)
        if body is None:
            return
        if entry.kind == OPEN_SESSION:
            self.registered[body["ses"]] = pack([root["cap"] for root in body["root"]])
        for ref in find_refs(EVENTS[entry.kind][1], body):
            if ref["ses"] != self.id and ref["seq"] < 2**63:
                db.execute("INSERT INTO cited VALUES (?, ?, ?, ?, ?, ?)", (ref["ses"], ref["seq"], ref["hash"], *where))
        tools = [body["tool"]] if entry.kind == 0x0601 else \
            [binding["tool"] for binding in body["tool"]] if entry.kind == 0x0610 else []
        for tool in tools:
            self.tools[tool["name"]] = tool["facts"]
            self.state_of(entry, tool["text"], {"tool": {name: tool[name] for name in DECIDES}})
        if entry.kind == CALL:
            facts = {"declared": self.tools.get(body["tool"], []), "fact": body["fact"], "extr": body["extr"]}
            self.state_of(entry, body["args"], facts)

    def state_of(self, entry, index, stated):
        """Keep what an entry states that was read from a blob."""
        self.store.db.execute("INSERT OR IGNORE INTO spec VALUES (?, ?, ?, ?, ?)",
                              (self.id, entry.blobs[index][1], pack(stated), entry.seq, entry.offset))


DECIDES = ("name", "dig", "facts", "needs", "eff", "rsv", "mod")


def compare(stated, content):
    """What is wrong with what an entry states, compared with the blob it was read from; None if nothing is."""
    if content is None:
        return "longer than arguments or a tool spec may be"
    if "tool" in stated:
        tool = stated["tool"]
        try:
            spec = unpack(content)
        except Finding as finding:
            return f"no tool spec: {finding.code}"
        if len(content) > 65_536 or derive("tool-spec", content) != tool["dig"]:
            return "the tool spec has another digest"
        same = isinstance(spec, dict) and all(spec.get(name) == tool[name] for name in DECIDES if name != "dig")
        return None if same else "the tool spec says something else"
    try:
        facts, extra = extract(content, {one["ptr"]: one["typ"] for one in stated["declared"]})
    except ArgumentError as error:
        return f"arguments that facts cannot be read from: {error}"
    same = facts == stated["fact"] and extra == stated["extr"]
    return None if same else "the arguments say something else"


def find_refs(spec, value):
    """Every entry of another session that a body cites."""
    for name, kind, _ in fields(spec):
        _, is_list, base, _ = split_type(kind)
        items = value[name] if is_list else [value[name]]
        if base in STRUCTURES and base not in ("Grant", "Plan"):
            for item in items:
                if item is not None and base == "Ref":
                    yield item
                elif item is not None:
                    yield from find_refs(STRUCTURES[base], item)
        if name == "head" and value[name] is not None:
            yield {"ses": value["ses"], **value[name]}


class Verifier:
    def __init__(self, path, root):
        self.report, self.root, self.store = Report(path), root, Store()
        self.sessions, self.blob_counts = {}, {}

    def run(self):
        report = self.report
        try:
            bundle = Bundle(self.report.path)
        except Unreadable as error:
            report.add("INPUT_UNREADABLE", "UNREADABLE", "frame", detail=str(error))
            return report
        for offset, what in bundle.faults[:50]:
            report.add("BUNDLE_MALFORMED", "UNREADABLE", "frame", offset=offset, detail=what)
        manifest = self.read_manifest(bundle)
        for at, length in bundle.of(ENTRIES):
            self.read_entries(bundle, at, length)
        if not self.sessions and not bundle.faults:
            report.add("BUNDLE_MALFORMED", "UNREADABLE", "frame", detail="no entries")
        for at, length in bundle.of(BLOBS):
            self.read_blobs(bundle, at, length)
        self.check_absent(manifest)
        self.check_cited()
        self.check_registered()
        self.check_tails()
        if manifest:
            self.compare_manifest(manifest)
        if self.root is None:
            report.add("ROOT_NOT_GIVEN", "NOT_CHECKED", "keys", detail="nobody knows who wrote this")
        for session in self.sessions.values():
            if session.stopped is not None:
                for axis in ("legality", "state"):
                    report.add("STOPPED_AT", "NOT_CHECKED", axis, session=session.id, seq=session.stopped)
        return report

    def read_manifest(self, bundle):
        sections = bundle.of(MANIFEST)
        if not sections:
            return None
        at, length = sections[0]
        if bundle.is_cut(at, length):
            return None
        try:
            if length > MAX_MANIFEST:
                raise Finding("BUNDLE_MALFORMED")
            manifest = unpack(bundle.window(at, length).take(length))
            check_manifest(manifest)
            return manifest
        except Finding as finding:
            self.report.add("BUNDLE_MALFORMED", "UNREADABLE", "frame", offset=at, field="manifest",
                            detail=finding.detail)
            return None

    def malformed(self, session, offset, what):
        self.report.add("BUNDLE_MALFORMED", "UNREADABLE", "frame", session=session, offset=offset, detail=what)

    def read_entries(self, bundle, at, length):
        window, is_cut = bundle.window(at, length), bundle.is_cut(at, length)
        if length < 48:
            if not is_cut:
                self.malformed(None, at, "too short for entries")
            return
        session = window.take(32)
        first, count = int.from_bytes(window.take(8), "big"), int.from_bytes(window.take(8), "big")
        if session in self.sessions:
            self.malformed(session, at, "a second section with entries of a session")
            return
        if len(self.sessions) > 1 and session < list(self.sessions)[-1]:
            self.malformed(session, at, "sessions in another order")
        checked = Session(self.report, self.store, window, self.root, session, first, is_cut)
        self.sessions[session] = checked
        if first:
            for axis in ("chain", "signatures", "keys", "commands", "legality", "state"):
                self.report.add("RANGE_INCOMPLETE", "NOT_CHECKED", axis, session=session, seq=first, offset=at + 32)
        checked.run()
        if checked.whole and checked.count != count and not is_cut:
            self.malformed(session, at + 40, f"{checked.count} entries, the section says {count}")
        if not checked.count:
            self.malformed(session, at, "no entry")
        self.report.counts["signed_commands"] += checked.rules.signed_commands if checked.rules else 0
        checked.rules, checked.grants = None, {}  # the state of a session is not needed behind it

    # --- blobs ------------------------------------------------------------------------------------------------------

    def read_blobs(self, bundle, at, length):
        window, is_cut = bundle.window(at, length), bundle.is_cut(at, length)
        if length < 32:
            if not is_cut:
                self.malformed(None, at, "too short for blobs")
            return
        session = window.take(32)
        if session not in self.sessions or session in self.blob_counts:
            self.malformed(session, at, "blobs of a session without entries, or a second section of them")
        if session in self.blob_counts:
            return
        self.blob_counts[session] = 0
        while window.left():
            offset = window.at
            try:
                commitment, salt, size = window.take(32), window.take(32), int.from_bytes(window.take(8), "big")
                if size > min(window.left(), MAX_BLOB):
                    raise Unreadable(f"a blob of {size} bytes, {window.left()} are left")
            except Unreadable as error:
                if not is_cut:
                    self.malformed(session, offset, str(error))
                return
            self.blob_counts[session] += 1
            self.read_blob(window, session, commitment, salt, size, offset)

    def read_blob(self, window, session, commitment, salt, size, offset):
        """Compare one blob with its commitment, and with what entries state that was read from it."""
        row = self.store.one("SELECT place, grains, at, present FROM blob WHERE session = ? AND commitment = ?",
                             session, commitment)
        wanted = self.store.all("SELECT digest, at, offset FROM spec WHERE session = ? AND commitment = ?",
                                session, commitment).fetchall()
        digest, content, left = hasher("blob"), bytearray(), size
        digest.update(salt + u64(size))
        while left:
            part = window.take(min(left, 1 << 16))
            digest.update(part)
            if wanted and size <= MAX_ARGUMENTS:
                content += part
            left -= len(part)
        if row is None:
            self.report.add("BLOB_UNNAMED", "NOTE", "blobs", session=session, offset=offset,
                            detail="no entry here names this blob")
            return
        where = {"session": session, "seq": row[2], "offset": offset}
        if row[3]:
            self.malformed(session, offset, "a blob twice")
        if digest.digest() != commitment or grains(size) != row[1]:
            self.report.add("BLOB_MISMATCH", detail="the content is not what was committed to", **where)
        else:
            self.report.counts["blobs"] += 1
            for stated, seq, at in wanted:
                what = compare(unpack(stated), bytes(content) if size <= MAX_ARGUMENTS else None)
                if what:
                    self.report.add("FACTS_MISMATCH", session=session, seq=seq, offset=at, detail=what)
        self.store.db.execute("UPDATE blob SET present = 1 WHERE place = ?", (row[0],))

    def check_absent(self, manifest):
        """A blob that is not here must be named as left out."""
        left_out = {(one["session"], one["blob"]) for one in (manifest["omitted"] if manifest else ())}
        for session, commitment, seq, offset in self.store.all(
                "SELECT session, commitment, at, offset FROM blob WHERE present = 0 ORDER BY place"):
            where = {"session": session, "seq": seq, "offset": offset, "detail": commitment.hex()}
            if (session, commitment) in left_out:
                self.report.add("BLOB_OMITTED", "NOT_CHECKED", **where)
            else:
                self.report.add("BLOB_MISSING_UNAUTHORISED", **where)

    # --- between sessions -------------------------------------------------------------------------------------------

    def check_cited(self):
        """Entries of other sessions, where the bundle holds those."""
        self.unresolved = 0
        cited = self.store.all("SELECT * FROM cited GROUP BY session, seq, hash ORDER BY rowid")
        for session, seq, hash_, by, at, offset in cited:
            if session not in self.sessions or self.sessions[session].failed:
                self.unresolved += 1
                continue
            row = self.store.one("SELECT hash FROM entry WHERE session = ? AND seq = ?", session, seq)
            if row is None and self.sessions[session].first > seq:
                self.unresolved += 1
            elif row is None or row[0] != hash_:
                what = "missing" if row is None else "another"
                self.report.add("REF_MISMATCH", axis="chain", session=by, seq=at, offset=offset,
                                detail=f"entry {seq} of {session.hex()[:12]} is {what}")

    def check_registered(self):
        """Work sessions beside a system session that is whole and without a finding."""
        systems = [one for one in self.sessions.values()
                   if one.system and one.whole and not one.failed and one.stopped is None and not one.first]
        for session in self.sessions.values():
            if not systems or session.system or session.roots is None:
                continue
            if not any(system.registered.get(session.id) == session.roots for system in systems):
                self.report.add("SESSION_UNREGISTERED", axis="tail", session=session.id, seq=0)

    def check_tails(self):
        for session in self.sessions.values():
            if session.closed:
                continue
            needed = not session.system or len(self.sessions) == 1
            self.report.add("TRUNCATION_NOT_EXCLUDED", "NOT_CHECKED" if needed else "NOTE", session=session.id,
                            seq=session.last_seq)

    def compare_manifest(self, manifest):
        """The manifest says what the file holds; it is compared and never trusted."""
        def differ(what, session=None):
            self.report.add("MANIFEST_MISMATCH", session=session, field=what)
        named = [one["session"] for one in manifest["sessions"]]
        if named != list(self.sessions):
            differ("sessions")
        for one in manifest["sessions"]:
            session = self.sessions.get(one["session"])
            if session is None:
                continue
            left_out = {other["blob"] for other in manifest["omitted"] if other["session"] == session.id} - {None}
            here = {"first": session.first, "blobs": self.blob_counts.get(session.id, 0), "omitted": len(left_out)}
            if session.whole and session.head:
                missing = self.store.all("SELECT commitment FROM blob WHERE session = ? AND present = 0", session.id)
                absent = sum(1 for (commitment,) in missing if commitment not in left_out)
                here.update(last=session.last_seq, head=session.head, absent=absent,
                            status=2 if session.head["kind"] == CLOSE else 1)
            for name, value in here.items():
                if one[name] != value:
                    differ(name, session.id)
            if any(self.store.one("SELECT present FROM blob WHERE session = ? AND commitment = ?", session.id, blob)
                   == (1,) for blob in left_out):
                differ("omitted", session.id)
        if any(one["session"] not in self.sessions for one in manifest["omitted"]):
            differ("omitted")


def check_manifest(manifest):
    """The shape of a manifest."""
    def must(condition):
        if not condition:
            raise Finding("BUNDLE_MALFORMED", "manifest", "not the shape of a manifest")

    def is_id(value):
        return isinstance(value, bytes) and len(value) == 32

    def is_count(value):
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    must(isinstance(manifest, dict) and list(manifest) == ["format", "sessions", "omitted"])
    must(manifest["format"] == "toka-bundle/1" and isinstance(manifest["sessions"], list)
         and isinstance(manifest["omitted"], list))
    for one in manifest["sessions"]:
        must(isinstance(one, dict) and list(one) == ["session", "first", "last", "head", "status", "blobs", "absent",
                                                     "omitted"])
        must(is_id(one["session"]) and all(is_count(one[n]) for n in ("first", "last", "status", "blobs", "absent",
                                                                     "omitted")))
        head = one["head"]
        must(isinstance(head, dict) and list(head) == ["hash", "time_us", "kind"] and is_id(head["hash"])
             and is_count(head["time_us"]) and is_count(head["kind"]))
    for one in manifest["omitted"]:
        must(isinstance(one, dict) and list(one) == ["session", "blob", "entries"] and is_id(one["session"])
             and (one["blob"] is None or is_id(one["blob"])))


# --- output --------------------------------------------------------------------------------------------------------

def printable(text):
    """Text that a terminal may show."""
    return "".join(c if c.isprintable() else "\\x%02x" % ord(c) for c in str(text))[:400]


def print_report(report, verifier, code, required):
    word = {0: "OK", 3: "FAIL", 4: "INCOMPLETE", 8: "UNREADABLE"}[code]
    first = next((f for f in report.findings if f["class"] in ("FAIL", "UNREADABLE", "NOT_CHECKED")), None)
    line = f"{word}: {printable(report.path)}: {len(verifier.sessions)} sessions, {report.counts['entries']} entries"
    print(line + (f": {first['code']}" + (f" at seq {first['seq']}" if first["seq"] is not None else "")
                  if first and code else "") + f" (exit {code})")
    print("  " + " · ".join(f"{axis} {value}" for axis, value in report.axes.items()))
    print("  " + ", ".join(f"{value} {name}" for name, value in report.counts.items())
          + f"; {verifier.unresolved} cited entries are not here")
    for finding in report.findings[:50]:
        place = [f"session {finding['session'][:12]}"] if finding["session"] else []
        place += [f"seq {finding['seq']}"] if finding["seq"] is not None else []
        place += [f"byte {finding['byte_offset']}"] if finding["byte_offset"] is not None else []
        place += [str(finding["field"])] if finding["field"] else []
        print(f"  {finding['code']} ({finding['class']}) {' '.join(place)}: {printable(finding['detail'] or '')}")
    if len(report.findings) + report.more > 50:
        print(f"  … and {len(report.findings) + report.more - 50} more")
    print("checked, as far as the axes say OK:")
    for check in CHECKS:
        print("  - " + check)
    print("not checked:")
    for check in NOT_CHECKS:
        print("  - " + check)


def main(arguments):
    parser = argparse.ArgumentParser(description="Verify a Toka bundle, offline.")
    parser.add_argument("file")
    parser.add_argument("--root-key", help="the verifier key line of the root key: NAME+HASH+KEY")
    parser.add_argument("--root-key-file", help="a file with that line")
    parser.add_argument("--require", default=",".join(AXES), help="axes that must hold for exit 0")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    required = options.require.split(",")
    if not set(required) <= set(AXES):
        parser.error("--require: unknown axis")
    root = None
    try:
        if options.root_key_file:
            with open(options.root_key_file, "rb") as file:
                root = parse_root_key(file.read(1024).decode())
        elif options.root_key:
            root = parse_root_key(options.root_key)
    except (ValueError, OSError) as error:
        print(f"error: the root key: {printable(error)}", file=sys.stderr)
        return 8 if options.root_key_file else 2
    verifier = Verifier(options.file, root)
    verifier.unresolved = 0
    try:
        report = verifier.run()
    except OSError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return 8
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, MemoryError) as error:
        print(f"error: this verifier failed, and has verified nothing: {printable(repr(error))}", file=sys.stderr)
        return 1
    code = report.exit_code(required)
    if options.json:
        print(json.dumps({"format": "toka-verify-py/1", "path": options.file, "exit": code, "required": required,
                          "axes": report.axes, "checked": report.counts, "checks": CHECKS, "not_checked": NOT_CHECKS,
                          "refs_unresolved": verifier.unresolved, "findings": report.findings,
                          "findings_not_listed": report.more}, default=str))
    else:
        print_report(report, verifier, code, required)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)
