#!/bin/sh
# Checks that the links in Markdown files lead somewhere, offline.
#
# usage: validate-links.sh [--findings-ok] [--] ROOT
#
# Reads every file *.md and *.markdown below ROOT, except in `.git`; no symbolic link is followed. A link must name a
# file or folder below ROOT, and behind `#` a heading or anchor of a Markdown file. Links with a scheme are counted and
# not looked at. Code in fences and between backticks holds no links; a block that is code by indentation alone does.
#
# Prints one JSON object on standard output, and anything else on standard error.
# Exit status: 0 no findings, 1 findings (0 with --findings-ok), 2 usage, 8 nothing could be read.

set -u
# Bytes are bytes; a name may be anything.
LC_ALL=C
export LC_ALL
unset CDPATH

usage() {
  printf 'validate-links: %s\nusage: validate-links.sh [--findings-ok] [--] ROOT\n' "$1" >&2
  exit 2
}

findings=1
while [ $# -gt 0 ]; do
  case $1 in
    --findings-ok) findings=0 ;;
    --) shift; break ;;
    -*) usage 'unknown option' ;;
    *) break ;;
  esac
  shift
done
[ $# -eq 1 ] || usage 'give one folder'
case $1 in
  '') usage 'the folder has no name' ;;
  /*) root=$1 ;;
  *) root=./$1 ;;
esac
if ! [ -d "$root" ] || ! cd "$root"; then
  printf 'validate-links: not a folder that can be read\n' >&2
  exit 8
fi

# The records between the programs are lines of fields with tabs between. What could hold either is written with
# percent signs, so a name with a newline stays one field.
# shellcheck disable=SC2016
bytes='
function bytes_begin(  i) {
  for (i = 1; i < 256; i++) { char[i] = sprintf("%c", i); code[char[i]] = i; hex[sprintf("%02X", i)] = i }
}
function packed(s,  out, i, c) {
  if (s !~ /[^A-Za-z0-9._\/]/) return s
  out = ""
  for (i = 1; i <= length(s); i++) {
    c = substr(s, i, 1)
    out = out (c ~ /[A-Za-z0-9._\/]/ ? c : sprintf("%%%02X", code[c]))
  }
  return out
}
function unpacked(s,  out, at, h) {
  out = ""
  while ((at = index(s, "%")) > 0) {
    h = toupper(substr(s, at + 1, 2))
    if (h in hex) { out = out substr(s, 1, at - 1) char[hex[h]]; s = substr(s, at + 3) }
    else { out = out substr(s, 1, at); s = substr(s, at + 1) }
  }
  return out s
}
'

# shellcheck disable=SC2016
names='BEGIN { bytes_begin(); for (i = 1; i < ARGC; i++) print "E\t" packed(ARGV[i]) }'

# shellcheck disable=SC2016
scan='
function indent(s) { sub(/^[ \t]+/, "", s); return s }
function link(target) { print "L\t" here "\t" n "\t" packed(target) }
function anchor(id) { print "A\t" here "\t" packed(id) }

# The text without what stands between backticks, so that nothing in there is a link.
function uncoded(s,  out, run, close_at, rest, tail) {
  out = ""
  while (match(s, /`+/)) {
    run = substr(s, RSTART, RLENGTH)
    out = out substr(s, 1, RSTART - 1)
    rest = substr(s, RSTART + RLENGTH)
    tail = rest
    close_at = 0
    while (match(tail, /`+/)) {
      if (RLENGTH == length(run)) { close_at = length(rest) - length(tail) + RSTART; break }
      tail = substr(tail, RSTART + RLENGTH)
    }
    if (close_at == 0) { out = out run; s = rest }
    else { out = out " "; s = substr(rest, close_at + length(run)) }
  }
  return out s
}

# The text without comments; one may reach over lines.
function uncommented(s,  out, at) {
  out = ""
  for (;;) {
    if (comment) {
      at = index(s, "-->")
      if (at == 0) return out
      s = substr(s, at + 3)
      comment = 0
    }
    at = index(s, "<!--")
    if (at == 0) return out s
    out = out substr(s, 1, at - 1)
    s = substr(s, at + 4)
    comment = 1
  }
}

# The id that a heading has where Markdown is shown.
function slug(s,  out, i, c, all, inner) {
  all = s
  s = ""
  while (match(all, /!?\[[^]]*\]\([^)]*\)/)) {
    inner = substr(all, RSTART, RLENGTH)
    s = s substr(all, 1, RSTART - 1)
    all = substr(all, RSTART + RLENGTH)
    sub(/^!?\[/, "", inner)
    sub(/\]\([^)]*\)$/, "", inner)
    s = s inner
  }
  s = s all
  gsub(/<[^>]*>/, "", s)
  s = tolower(s)
  out = ""
  for (i = 1; i <= length(s); i++) {
    c = substr(s, i, 1)
    if (c == " " || c == "\t") out = out "-"
    else if (c ~ /[a-z0-9_-]/) out = out c
    # Dashes, quotes and the like, which are punctuation beyond ASCII.
    else if (c == char[226] && (substr(s, i + 1, 1) == char[128] || substr(s, i + 1, 1) == char[129])) i += 2
    else if (code[c] >= 128) out = out c
  }
  return out
}

function heading(s,  id) {
  gsub(/^[ \t]+|[ \t]+$/, "", s)
  sub(/[ \t]+#+$/, "", s)
  id = slug(s)
  if (id in seen) { anchor(id "-" seen[id]); seen[id]++ }
  else { anchor(id); seen[id] = 1 }
}

# The target that begins a text, in pointed brackets or up to a space or the bracket that closes it.
function target(s,  out, i, c, depth) {
  s = indent(s)
  if (substr(s, 1, 1) == "<") {
    i = index(s, ">")
    return i ? substr(s, 2, i - 2) : substr(s, 2)
  }
  out = ""
  depth = 0
  for (i = 1; i <= length(s); i++) {
    c = substr(s, i, 1)
    if (c == "\\" && substr(s, i + 1, 1) ~ /[!-\/:-@[-`{-~]/) { i++; out = out substr(s, i, 1); continue }
    if (c == " " || c == "\t") break
    if (c == "(") depth++
    if (c == ")" && depth-- == 0) break
    out = out c
  }
  return out
}

function links(s,  at, rest) {
  rest = indent(s)
  if (match(rest, /^\[[^]^][^]]*\]:[ \t]*/)) { link(target(substr(rest, RLENGTH + 1))); return }
  rest = s
  while ((at = index(rest, "](")) > 0) {
    if (at == 1 || substr(rest, at - 1, 1) != "\\") link(target(substr(rest, at + 2)))
    rest = substr(rest, at + 2)
  }
  if (index(s, "<") == 0) return
  rest = s
  while (match(rest, attribute_link)) {
    at = RSTART + RLENGTH
    c = substr(rest, RSTART, RLENGTH)
    sub(/^[^=]*=./, "", c)
    link(substr(c, 1, length(c) - 1))
    rest = substr(rest, at)
  }
  rest = s
  while (match(rest, attribute_id)) {
    at = RSTART + RLENGTH
    c = substr(rest, RSTART, RLENGTH)
    sub(/^[^=]*=./, "", c)
    anchor(substr(c, 1, length(c) - 1))
    rest = substr(rest, at)
  }
}

function line_of(s,  plain, c, k, rest) {
  sub(/\r$/, "", s)
  plain = indent(s)
  c = substr(plain, 1, 1)
  if (!comment && (c == "`" || c == "~") && match(plain, c == "`" ? "^```+" : "^~~~+")) {
    k = RLENGTH
    rest = substr(plain, k + 1)
    if (fence == "") {
      if (c == "~" || index(rest, "`") == 0) { fence = c; fence_length = k; before = ""; return }
    } else if (c == fence && k >= fence_length && rest ~ /^[ \t]*$/) { fence = ""; before = ""; return }
  }
  if (fence != "") return
  s = uncommented(s)
  plain = indent(s)
  if (match(plain, /^#+/) && RLENGTH <= 6 && substr(plain, RLENGTH + 1, 1) ~ /^[ \t]?$/) {
    heading(substr(plain, RLENGTH + 1))
    before = ""
  } else if (before != "" && plain ~ /^(=+|-+)[ \t]*$/) {
    heading(before)
    before = ""
  } else {
    before = plain
  }
  links(uncoded(s))
}

BEGIN {
  bytes_begin()
  quotes = "[\"" char[39] "]"
  attribute_link = "(href|src)=" quotes "[^\"" char[39] "]*" quotes
  attribute_id = "(id|name)=" quotes "[^\"" char[39] "]*" quotes
  for (i = 1; i < ARGC; i++) {
    file = ARGV[i]
    here = packed(file)
    n = 0
    fence = ""
    comment = 0
    before = ""
    split("", seen)
    while ((got = (getline text < file)) > 0) { n++; line_of(text) }
    close(file)
    print (got < 0 ? "U\t" : "F\t") here
  }
}'

# shellcheck disable=SC2016
judge='
# A JSON string; bytes that are no UTF-8 become U+FFFD.
function quoted(s,  out, i, k, c, b, more, low, high) {
  out = ""
  for (i = 1; i <= length(s); i++) {
    c = substr(s, i, 1)
    b = code[c]
    if (c == "\"" || c == "\\") out = out "\\" c
    else if (b < 32 || b == 127) out = out sprintf("\\u%04x", b)
    else if (b < 128) out = out c
    else {
      low = 128; high = 191
      if (b >= 194 && b <= 223) more = 1
      else if (b >= 224 && b <= 239) { more = 2; if (b == 224) low = 160; if (b == 237) high = 159 }
      else if (b >= 240 && b <= 244) { more = 3; if (b == 240) low = 144; if (b == 244) high = 143 }
      else more = 0
      for (k = 1; k <= more; k++) {
        b = i + k <= length(s) ? code[substr(s, i + k, 1)] : 0
        if (b < low || b > high) break
        low = 128; high = 191
      }
      if (more > 0 && k > more) { out = out substr(s, i, more + 1); i += more }
      else out = out "\\ufffd"
    }
  }
  return "\"" out "\""
}

# The path of a link from a file, without `.` and `..`; ".." where it leaves the root.
function resolved(file, path,  segments, count, i, kept, out) {
  if (substr(path, 1, 1) == "/") out = path
  else if (match(file, /.*\//)) out = substr(file, 1, RLENGTH) path
  else out = path
  count = split(out, segments, "/")
  kept = 0
  for (i = 1; i <= count; i++) {
    if (segments[i] == "" || segments[i] == ".") continue
    if (segments[i] == "..") { if (kept-- == 0) return ".."; continue }
    segments[++kept] = segments[i]
  }
  out = ""
  for (i = 1; i <= kept; i++) out = out (i > 1 ? "/" : "") segments[i]
  return out
}

function finding(problem) {
  count++
  if (count > 1000) { truncated = 1; return }
  found = found (count > 1 ? "," : "") "{\"file\":" quoted(file) ",\"line\":" $3 ",\"link\":" quoted(whole) \
    ",\"problem\":\"" problem "\"}"
}

BEGIN { FS = "\t"; bytes_begin(); exists[""] = 1; complete = 1; count = total = external = files = unread = 0 }
{ file = unpacked($2); sub(/^\.\//, "", file) }
$1 == "A" { anchors[file "#" unpacked($3)] = 1 }
$1 == "E" { exists[file] = 1 }
$1 == "F" { files++; scanned[file] = 1 }
$1 == "S" && $2 != "0" { complete = 0 }
$1 == "U" { unread++; unreadable = unreadable (unread > 1 ? "," : "") quoted(file) }
$1 == "L" {
  total++
  whole = unpacked($4)
  if (whole == "") { finding("empty"); next }
  if (whole ~ /^[A-Za-z][A-Za-z0-9+.-]*:/ || whole ~ /^\/\//) { external++; next }
  at = index(whole, "#")
  path = at ? substr(whole, 1, at - 1) : whole
  part = at ? unpacked(substr(whole, at + 1)) : ""
  sub(/\?.*$/, "", path)
  to = path == "" ? file : resolved(file, unpacked(path))
  if (to == "..") { finding("leaves-root"); next }
  if (!(to in exists)) { finding("no-such-file"); next }
  if (part == "" || part == "top" || !(to in scanned)) next
  if (!((to "#" part) in anchors) && !((to "#" tolower(part)) in anchors)) finding("no-such-anchor")
}
END {
  printf "{\"complete\":%s,\"count\":%d,\"external\":%d,\"files\":%d,\"findings\":[%s],\"links\":%d,", \
    complete && !unread ? "true" : "false", count, external, files, found, total
  printf "\"truncated\":%s,\"unreadable\":[%s]}\n", truncated ? "true" : "false", unreadable
  if (files == 0 && (unread > 0 || !complete)) exit 8
  exit count > 0 ? 1 : 0
}'

tab=$(printf '\t')
{
  find . -name .git -prune -o -exec awk "$bytes$names" {} +
  printf 'S\t%d\n' "$?"
  find . -name .git -prune -o -type f \( -name '*.md' -o -name '*.markdown' \) -exec awk "$bytes$scan" {} +
  printf 'S\t%d\n' "$?"
} | sort -t "$tab" -k1,1 -k2,2 -k3,3n | awk "$bytes$judge"
status=$?
if [ "$status" -eq 1 ]; then
  exit "$findings"
fi
exit "$status"
