"""Compares two verifiers of Toka bundles on changed copies.

    python3 attack.py BUNDLES TOKA_REPLAY [--edits 1000] [--seed 1] [--home HOME]

BUNDLES holds bundles NAME.tkb and root keys: `NAME.pub` beside a bundle, or the one whose name the bundle's begins
with, or `root.pub`. Cases: each bundle as it is; the smallest with every byte flipped once and cut at every byte;
`--edits` random edits, half of them with lengths, counts and trailer set right again; with `--home`, whose keys
must not be sealed, half as many changes of fields that are signed again. Exit code 1 at a disagreement: other exit
codes, or, where both find a violation, another entry. Cases follow from the seed alone.
"""

import argparse
import base64
import json
import multiprocessing
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter

import nacl.signing

import verify
from toka_wire import MAGIC, derive, parse_root_key, u16, u64, unpack, pack

LIMIT_SECONDS = 30


# --- bundles as lists of parts --------------------------------------------------------------------------------------

def split_bundle(data):
    """A bundle as [(type, bytes)], without its trailer."""
    at, sections = len(MAGIC), []
    while at < len(data):
        kind, length = data[at], struct.unpack(">Q", data[at + 1:at + 9])[0]
        sections.append((kind, data[at + 9:at + 9 + length]))
        at += 9 + length
    return [one for one in sections if one[0] != 255]


def join_bundle(sections):
    data = MAGIC + b"".join(bytes((kind,)) + u64(len(part)) + part for kind, part in sections)
    return data + b"\xff" + u64(32) + derive("bundle", data)


def split_entries(part):
    """An entries section as its head and the bytes of each entry."""
    at, entries = 48, []
    while at + 200 <= len(part):
        causes, blobs = struct.unpack(">HH", part[at + 10:at + 14])
        size = 264 + 8 * causes + 36 * blobs + struct.unpack(">I", part[at + 164:at + 168])[0]
        entries.append(part[at:at + size])
        at += size
    return part[:48], entries


def join_entries(head, entries):
    return head[:40] + u64(len(entries)) + b"".join(entries)


def with_entries(data, change):
    """A bundle whose first section of entries went through `change`, with counts, lengths and trailer right."""
    sections = split_bundle(data)
    place = next(i for i, (kind, _) in enumerate(sections) if kind == 3)
    head, entries = split_entries(sections[place][1])
    entries = change(entries)
    sections[place] = (3, join_entries(head, entries))
    try:
        manifest, last = unpack(sections[0][1]), entries[-1]
        header, _ = take_apart(last)
        manifest["sessions"][0].update(last=len(entries) - 1, status=2 if header[6:8] == b"\0\3" else 1, head={
            "hash": derive("entry", header, last[len(header):len(header) + 64]),
            "time_us": struct.unpack(">Q", header[88:96])[0], "kind": struct.unpack(">H", header[6:8])[0]})
        sections[0] = (1, pack(manifest))
    except Exception:  # what the edit left is no entry; then the manifest stays as it was
        pass
    return join_bundle(sections)


# --- edits ----------------------------------------------------------------------------------------------------------

def edit_raw(rng, data, other):
    """One edit of bytes."""
    data, how = bytearray(data), rng.choice(("set", "insert", "delete", "swap", "copy", "splice", "length"))
    at = rng.randrange(len(data))
    size = rng.choice((1, 2, 8, 32, 64, rng.randrange(1, 600)))
    if how == "set":
        for _ in range(rng.choice((1, 1, 2, 5))):
            data[rng.randrange(len(data))] = rng.choice((0, 255, rng.randrange(256)))
    elif how == "insert":
        data[at:at] = rng.randbytes(size)
    elif how == "delete":
        del data[at:at + size]
    elif how == "swap":
        to = rng.randrange(len(data))
        one, two = data[at:at + size], data[to:to + size]
        if len(one) == len(two):
            data[at:at + size], data[to:to + size] = two, one
    elif how == "copy":
        data[at:at] = data[at:at + size]
    elif how == "splice":
        place = rng.randrange(len(other))
        data[at:at + size] = other[place:place + size]
    else:  # a number somewhere becomes large
        data[at:at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)))
    return how, bytes(data)


def edit_entries(rng, data, other):
    """One edit of whole entries, or within one, with what surrounds them right again."""
    how = rng.choice(("drop", "twice", "swap", "shuffle", "foreign", "within", "cut", "blobs"))

    def change(entries):
        entries = list(entries)
        at, to = rng.randrange(len(entries)), rng.randrange(len(entries))
        if how == "drop":
            del entries[at]
        elif how == "twice":
            entries.insert(to, entries[at])
        elif how == "swap":
            entries[at], entries[to] = entries[to], entries[at]
        elif how == "shuffle":
            low, high = sorted((at, to))
            part = entries[low:high + 1]
            rng.shuffle(part)
            entries[low:high + 1] = part
        elif how == "foreign":
            _, theirs = split_entries(next(part for kind, part in split_bundle(other) if kind == 3))
            entries[at] = theirs[min(at, len(theirs) - 1)]
        elif how == "within":
            entry = bytearray(entries[at])
            entry[rng.randrange(len(entry))] ^= 1 << rng.randrange(8)
            entries[at] = bytes(entry)
        elif how == "cut":
            del entries[max(1, at):]
        return entries

    if how == "blobs":
        sections = split_bundle(data)
        places = [i for i, (kind, _) in enumerate(sections) if kind == 4]
        if places:
            place = rng.choice(places)
            part = bytearray(sections[place][1])
            part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
            sections[place] = (4, bytes(part))
        return how, join_bundle(sections)
    return how, with_entries(data, change)


# --- changes that are signed again ----------------------------------------------------------------------------------

class Signer:
    """Signs entries with the event keys of a home, as whoever holds them could."""

    def __init__(self, home):
        self.keys = {}
        folder = os.path.join(home, "keys")
        for name in os.listdir(folder):
            if name.startswith("event-") and name.endswith(".key"):
                with open(os.path.join(folder, name)) as file:
                    key = nacl.signing.SigningKey(base64.b64decode(file.read().splitlines()[2]))
                self.keys[derive("key", b"\x01", bytes(key.verify_key))] = key

    def seal(self, header, body, prev):
        """An entry of these bytes, linked and signed."""
        kind, schema = struct.unpack(">HH", header[6:10])
        header = bytearray(header)
        header[56:88], header[164:168] = prev, struct.pack(">I", len(body))
        header[168:200] = derive("body", u16(kind), u16(schema), body)
        header = bytes(header)
        key = self.keys[header[100:132]]
        signature = key.sign(b"\x00toka-entry-sig-v1" + derive("header", header)).signature
        return header + signature + body, derive("entry", header, signature)


def take_apart(entry):
    causes, blobs = struct.unpack(">HH", entry[10:14])
    size = 200 + 8 * causes + 36 * blobs
    return entry[:size], entry[size + 64:]


def mutate(rng, value, pool):
    """A value with one part of it changed; `pool` holds values of the same kind from elsewhere."""
    if isinstance(value, dict):
        key = rng.choice(list(value))
        return {**value, key: mutate(rng, value[key], pool)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        how = rng.random()
        if how < 0.6:
            return value[:at] + [mutate(rng, value[at], pool)] + value[at + 1:]
        return value[:at] + value[at + 1:] if how < 0.8 else value[:at] + [value[at]] + value[at:]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((0, 1, 2, value + 1, max(0, value - 1), 2**16 - 1, 2**32, 2**53, 2**64 - 1, 256))
    if isinstance(value, bytes) and len(value) > 40:
        try:
            return pack(mutate(rng, unpack(value), pool))
        except Exception:
            return value[:-1]
    same = [one for one in pool if type(one) is type(value) and one != value
            and (not isinstance(one, bytes) or len(one) == len(value))]
    if value is None:
        return rng.choice((0, 1, "x", [], rng.choice(pool)))
    how = rng.random()
    if how < 0.7 and same:
        return rng.choice(same)
    return None if how < 0.8 else [] if isinstance(value, list) else value[:-1] if value else value


def values_of(value):
    if isinstance(value, dict):
        for one in value.values():
            yield from values_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from values_of(one)
    elif isinstance(value, (bytes, str)):
        yield value


def edit_signed(rng, data, signer):
    """One entry says something else, and it and all behind it are signed again."""
    def change(entries):
        bodies = [unpack(take_apart(entry)[1]) for entry in entries]
        pool = list({one for body in bodies for one in values_of(body)})
        pool.sort(key=repr)
        at = rng.randrange(1, len(entries))
        how = rng.random()
        out, prev = entries[:at], None
        header, _ = take_apart(entries[at - 1])
        last = entries[at - 1]
        prev = derive("entry", header, last[len(header):len(header) + 64])
        rest = list(entries[at:])
        if how < 0.85:
            header, _ = take_apart(rest[0])
            body = bodies[at]
            for _ in range(rng.choice((1, 1, 1, 2))):
                body = mutate(rng, body, pool)
            rest[0] = header + bytes(64) + pack(body)
        elif how < 0.93:  # somebody else asks, or at another time
            header, body = take_apart(rest[0])
            header = bytearray(header)
            if rng.random() < 0.7:
                others = [take_apart(entry)[0][132:164] for entry in entries]
                header[132:164] = rng.choice(others)
            else:
                header[88:96] = u64(struct.unpack(">Q", header[88:96])[0] + rng.choice((0, 1, -1, 10**6, 10**12)))
            rest[0] = bytes(header) + bytes(64) + body
        else:
            del rest[0]
        for number, entry in enumerate(rest, at):
            size = 200 + 8 * struct.unpack(">H", entry[10:12])[0] + 36 * struct.unpack(">H", entry[12:14])[0]
            header = entry[:48] + u64(number) + entry[56:size]
            sealed, prev = signer.seal(header, entry[size + 64:], prev)
            out.append(sealed)
        return out
    return "signed", with_entries(data, change)


# --- running --------------------------------------------------------------------------------------------------------

class TooLong(Exception):
    pass


def on_alarm(*_):
    raise TooLong


def run_python(path, root):
    """(exit code, [(code, seq)]) of the verifier in this process."""
    signal.alarm(LIMIT_SECONDS)
    try:
        report = verify.Verifier(path, root).run()
        return report.exit_code(verify.AXES), [(f["code"], f["seq"]) for f in report.findings if f["class"] == "FAIL"]
    except TooLong:
        return "hang", []
    except Exception:
        return "traceback", [(traceback.format_exc(), None)]
    finally:
        signal.alarm(0)


def run_other(program, path, root_file):
    done = subprocess.run([program, "verify", path, "--root", root_file, "--json", "--jobs", "1"],
                          capture_output=True, timeout=60)
    try:
        findings = json.loads(done.stdout)["findings"]
    except (ValueError, KeyError):
        findings = []
    return done.returncode, [(f["code"], f["seq"]) for f in findings
                             if f["class"] == "FAIL" and f.get("caused_by") is None]


def root_of(folder, name):
    stem = name[:-4]
    names = [f for f in os.listdir(folder) if f.endswith(".pub")]
    fitting = [f for f in names if stem.startswith(f[:-4])] or ["root.pub"]
    return os.path.join(folder, max(fitting, key=len))


def build(case, bundles, signers):
    """The bytes of a case; everything follows from the case itself."""
    kind, name, number, seed = case
    data = bundles[name]
    rng = random.Random(f"{seed}/{kind}/{name}/{number}")
    if kind == "as is":
        return kind, data
    if kind == "flip":
        return kind, data[:number] + bytes((data[number] ^ 1 << rng.randrange(8),)) + data[number + 1:]
    if kind == "cut":
        return kind, data[:number]
    other = bundles[rng.choice(sorted(bundles))]
    if kind == "signed":
        return edit_signed(rng, data, signers)
    how, data = (edit_raw if number % 2 else edit_entries)(rng, data, other)
    return f"edit {how}", data


def start(folder, program, home):
    global FOLDER, PROGRAM, SIGNERS, BUNDLE_DATA, ROOTS
    signal.signal(signal.SIGALRM, on_alarm)
    FOLDER, PROGRAM, SIGNERS = folder, program, Signer(home) if home else None
    BUNDLE_DATA, ROOTS = {}, {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".tkb"):
            with open(os.path.join(folder, name), "rb") as file:
                BUNDLE_DATA[name] = file.read()
            with open(root_of(folder, name)) as file:
                ROOTS[name] = (parse_root_key(file.read()), root_of(folder, name))


def one_case(case):
    kind, data = build(case, BUNDLE_DATA, SIGNERS)
    if case[0] != "as is" and data == BUNDLE_DATA[case[1]]:
        kind += " (nothing changed)"
    root, root_file = ROOTS[case[1]]
    with tempfile.NamedTemporaryFile(suffix=".tkb") as file:
        file.write(data)
        file.flush()
        mine, theirs = run_python(file.name, root), run_other(PROGRAM, file.name, root_file)
    same = mine[0] == theirs[0]
    if same and mine[0] == 3:
        same = bool({seq for _, seq in mine[1]} & {seq for _, seq in theirs[1]})
    codes = same and mine[0] == 3 and mine[1][0][0] == theirs[1][0][0]
    return case, kind, mine, theirs, same, codes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles")
    parser.add_argument("program")
    parser.add_argument("--edits", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", help="the home whose event keys sign again, in bundles that are its own")
    parser.add_argument("--no-flips", action="store_true")
    parser.add_argument("--show", type=int, default=20, help="how many disagreements are printed")
    parser.add_argument("--only", help="KIND:NAME:NUMBER of one case, whose bytes go to stdout")
    options = parser.parse_args()
    start(options.bundles, options.program, options.home)
    if options.only:
        kind, name, number = options.only.split(":")
        sys.stdout.buffer.write(build((kind, name, int(number), options.seed), BUNDLE_DATA, SIGNERS)[1])
        return 0
    names = sorted(BUNDLE_DATA)
    smallest = min(names, key=lambda name: (len(BUNDLE_DATA[name]), name))
    rng = random.Random(options.seed)
    cases = [("as is", name, 0, options.seed) for name in names]
    if not options.no_flips:
        cases += [("flip", smallest, at, options.seed) for at in range(len(BUNDLE_DATA[smallest]))]
        cases += [("cut", smallest, at, options.seed) for at in range(len(BUNDLE_DATA[smallest]))]
    weights = [1 / len(BUNDLE_DATA[name]) for name in names]
    cases += [("edit", rng.choices(names, weights)[0], number, options.seed) for number in range(options.edits)]
    if options.home:
        own = [name for name in names if can_sign(BUNDLE_DATA[name])]
        cases += [("signed", rng.choice(own), number, options.seed) for number in range(options.edits // 2)]
    began, exits, kinds, wrong, coded, most = time.time(), Counter(), Counter(), [], [0, 0], 0
    with multiprocessing.Pool(initializer=start, initargs=(options.bundles, options.program, options.home)) as pool:
        for case, kind, mine, theirs, same, codes, memory in pool.imap(one_case, cases, chunksize=16):
            kinds[kind] += 1
            exits[(mine[0], theirs[0])] += 1
            most = max(most, memory)
            if mine[0] == 3 and same:
                coded[0] += codes
                coded[1] += 1
            if not same:
                wrong.append((case, kind, mine, theirs))
                if len(wrong) <= options.show:
                    print(f"DISAGREE {case[0]}:{case[1]}:{case[2]} ({kind}): {mine[0]} {mine[1][:2]} / {theirs[0]} "
                          f"{theirs[1][:2]}", flush=True)
    print(f"{len(cases)} cases in {time.time() - began:.0f} s, {len(wrong)} disagreements; "
          f"memory at most {most // 1024} MiB")
    print("cases: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    print("exit codes (this/other): "
          + ", ".join(f"{a}/{b} {count}" for (a, b), count in sorted(exits.items(), key=str)))
    print(f"where both find a violation: the same first code in {coded[0]} of {coded[1]}")
    return 1 if wrong else 0


def can_sign(data):
    """Whether the home's keys signed the entries of a bundle."""
    _, entries = split_entries(next(part for kind, part in split_bundle(data) if kind == 3))
    return all(entry[100:132] in SIGNERS.keys for entry in entries)


if __name__ == "__main__":
    sys.exit(main())
