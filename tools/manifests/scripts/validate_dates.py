#!/usr/bin/env python3
"""Finds dates in text files, and tells those that lie in the future.

usage: validate_dates.py [--strict] [--today YYYY-MM-DD] [--allow-future-days N] [--findings-ok] [--] PATH

PATH is a file, or a folder whose text files are read: md txt rst rs toml yaml yml json, at most 4 MiB each and
10,000 of them. Hidden names, `target` and `node_modules` are left out, and no link is followed.

A date is written 2025-01-15, 2025/01/15, 15.01.2025, 15 January 2025, January 15, 2025 or Jan 15, 2025. It is a
finding when it lies more than N days after today. What looks like a date and is none (2025-02-30) is ignored, or a
finding with --strict. A line with DATE:EXEMPT exempts itself and three lines on either side.

Today is --today, else the day of TOKA_TIME_US, else the day of the clock, in UTC.

Prints one JSON object on standard output, and anything else on standard error.
Exit status: 0 no findings, 1 findings (0 with --findings-ok), 2 usage, 8 nothing could be read.
"""

import datetime
import json
import os
import re
import stat
import sys

SUFFIXES = (".md", ".txt", ".rst", ".rs", ".toml", ".yaml", ".yml", ".json")
FILE_BYTES_MAX = 4 << 20
FILES_MAX = 10_000
FINDINGS_MAX = 1_000
EXEMPT_LINES = 3

MONTHS = "january february march april may june july august september october november december".split()
MONTH = "(?P<month{0}>" + "|".join(MONTHS + [month[:3] for month in MONTHS if month != "may"] + ["sept"]) + ")"
# A digit, or a sign that joins digits to a longer number, on either side makes it something else than a date.
BEFORE = r"(?<![0-9A-Za-z])(?<![0-9][-/.])"
AFTER = r"(?![0-9A-Za-z])(?![-/.][0-9])"
FORMS = re.compile(
    BEFORE
    + "(?:"
    + r"(?P<y1>[0-9]{4})-(?P<m1>[0-9]{2})-(?P<d1>[0-9]{2})(?:(?=[Tt][0-9])|"
    + AFTER
    + ")|"
    + r"(?P<y2>[0-9]{4})/(?P<m2>[0-9]{2})/(?P<d2>[0-9]{2})"
    + AFTER
    + "|"
    + r"(?P<d3>[0-9]{2})\.(?P<m3>[0-9]{2})\.(?P<y3>[0-9]{4})"
    + AFTER
    + "|"
    + r"(?P<d4>[0-9]{1,2}) "
    + MONTH.format(4)
    + r" (?P<y4>[0-9]{4})"
    + AFTER
    + "|"
    + MONTH.format(5)
    + r"\.? (?P<d5>[0-9]{1,2}), (?P<y5>[0-9]{4})"
    + AFTER
    + ")",
    re.ASCII | re.IGNORECASE,
)


class Usage(Exception):
    """The arguments are wrong."""


def day(text):
    """The day in YYYY-MM-DD."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII):
        raise Usage(f"not a day of the form YYYY-MM-DD: {text!a}")
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise Usage(f"no such day: {text!a}") from error


def today():
    """The day of the call, so that a repetition of it sees the same day."""
    micros = os.environ.get("TOKA_TIME_US")
    if micros is None:
        return datetime.datetime.now(datetime.timezone.utc).date()
    if not re.fullmatch(r"[0-9]{1,17}", micros, re.ASCII):
        raise Usage("TOKA_TIME_US is no time in microseconds")
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    try:
        return (epoch + datetime.timedelta(microseconds=int(micros))).date()
    except OverflowError as error:
        raise Usage("TOKA_TIME_US lies beyond the calendar") from error


def arguments(words):
    options = {"strict": False, "today": None, "allow": 0, "findings_ok": False, "path": None}
    words = list(words)
    paths = []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word == "--":
            paths += words
            break
        if word == "--strict":
            options["strict"] = True
        elif word == "--findings-ok":
            options["findings_ok"] = True
        elif name in ("--today", "--allow-future-days"):
            if not equals:
                if not words:
                    raise Usage(f"{name} needs a value")
                value = words.pop(0)
            if name == "--today":
                options["today"] = day(value)
            elif re.fullmatch(r"[0-9]{1,5}", value, re.ASCII):
                options["allow"] = int(value)
            else:
                raise Usage(f"not a number of days: {value!a}")
        elif word.startswith("-"):
            raise Usage(f"unknown option {word!a}")
        else:
            paths.append(word)
    if len(paths) != 1:
        raise Usage("give one path")
    options["path"] = paths[0]
    options["today"] = options["today"] or today()
    return options


def files(top):
    """Yields the paths of the text files at or below `top`, sorted by their bytes; errors go to `unreadable`."""
    top = os.fsencode(top)
    kind = os.lstat(top).st_mode
    if stat.S_ISREG(kind):
        yield top, b""
        return
    if not stat.S_ISDIR(kind):
        raise OSError("neither a file nor a folder")
    found = []
    pending = [b""]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(os.path.join(top, folder) if folder else top))
        except OSError:
            if not folder:
                raise
            found.append((folder + b"/", None))
            continue
        for entry in entries:
            path = folder + b"/" + entry.name if folder else entry.name
            if entry.name.startswith(b".") or entry.name in (b"target", b"node_modules"):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif entry.is_file(follow_symlinks=False) and entry.name.lower().endswith(tuple(map(str.encode, SUFFIXES))):
                found.append((path, os.path.join(top, path)))
    for path, whole in sorted(found, key=lambda pair: pair[0]):
        yield whole, path


def named(path):
    """A path as text: bytes that are no UTF-8 become U+FFFD."""
    return path.decode("utf-8", "replace")


def parts(match):
    """Year, month and day of a match."""
    for form in "12345":
        if match["y" + form] is not None:
            break
    year, number = int(match["y" + form]), int(match["d" + form])
    if form in "123":
        return year, int(match["m" + form]), number
    return year, [month[:3] for month in MONTHS].index(match["month" + form][:3].lower()) + 1, number


def look(text, options):
    """Yields line, column, text, day or None, and rule of every finding; a finding None is a date that is fine."""
    lines = text.split("\n")
    marks = [index for index, line in enumerate(lines) if "DATE:EXEMPT" in line]
    exempt = {line for mark in marks for line in range(mark - EXEMPT_LINES, mark + EXEMPT_LINES + 1)}
    try:
        last = options["today"] + datetime.timedelta(days=options["allow"])
    except OverflowError:
        last = datetime.date.max
    for index, line in enumerate(lines):
        for match in FORMS.finditer(line):
            try:
                date = datetime.date(*parts(match))
            except ValueError:
                date = None
            rule = None
            if index in exempt:
                pass
            elif date is None:
                rule = "invalid" if options["strict"] else None
            elif date > last:
                rule = "future"
            yield index + 1, match.start() + 1, match[0], date, rule


def run(options):
    result = {
        "today": options["today"].isoformat(),
        "files": 0,
        "dates": 0,
        "binary": 0,
        "too_large": 0,
        "unreadable": 0,
        "count": 0,
        "findings": [],
        "truncated": False,
    }
    for whole, path in files(options["path"]):
        if result["files"] == FILES_MAX:
            result["truncated"] = True
            break
        try:
            if whole is None:
                raise OSError("a folder that cannot be read")
            with open(whole, "rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
        except OSError:
            result["unreadable"] += 1
            continue
        if len(content) > FILE_BYTES_MAX:
            result["too_large"] += 1
            continue
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            result["binary"] += 1
            continue
        result["files"] += 1
        for line, column, found, date, rule in look(text, options):
            result["dates"] += 1
            if rule is None:
                continue
            result["count"] += 1
            if len(result["findings"]) == FINDINGS_MAX:
                result["truncated"] = True
                continue
            finding = {"file": named(path), "line": line, "column": column, "text": found, "rule": rule}
            if date is not None:
                finding["date"] = date.isoformat()
            result["findings"].append(finding)
    return result


def main():
    try:
        options = arguments(sys.argv[1:])
    except Usage as error:
        print(f"validate_dates: {error}", file=sys.stderr)
        return 2
    try:
        result = run(options)
    except (OSError, ValueError) as error:
        print(f"validate_dates: the path cannot be read: {type(error).__name__}", file=sys.stderr)
        return 8
    json.dump(result, sys.stdout, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    sys.stdout.write("\n")
    if result["unreadable"] and not result["files"]:
        return 8
    return 1 if result["count"] and not options["findings_ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
