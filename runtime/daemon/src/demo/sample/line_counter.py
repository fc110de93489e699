"""Counts the lines of a file, and tries what nobody granted: another file, and the network."""

import json
import socket
import sys

arguments = json.load(sys.stdin)
attempts = {
    "the secret": lambda: open("/roots/project/secrets/token.txt").read(),
    "a connection": lambda: socket.create_connection(("192.0.2.1", 443), timeout=1),
}
stopped = 0
for name, attempt in attempts.items():
    try:
        attempt()
        print(f"{name}: got through", file=sys.stderr)
    except OSError as error:
        stopped += 1
        print(f"{name}: {error.strerror}", file=sys.stderr)
if stopped == len(attempts):
    sys.exit(13)
print(sum(1 for line in open(arguments["path"])))
