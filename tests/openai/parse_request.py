"""Reads request bodies, one on a line, with the types of the openai package, and says what it read.

What those types do not know, they leave out; so the body must come out of them as it went in.
"""

import json
import sys
from collections.abc import Iterator

from openai.types.chat.completion_create_params import CompletionCreateParams
from pydantic import TypeAdapter


def plain(value):
    """A validated value as JSON would hold it. Lists are validated as they are read."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (str, bytes)):
        return value
    if isinstance(value, (list, tuple, Iterator)) or type(value).__name__ == "ValidatorIterator":
        return [plain(item) for item in value]
    return value


def main():
    # Kept until the end: what it returns reads its lists later.
    adapter = TypeAdapter(CompletionCreateParams)
    said = []
    for line in sys.stdin:
        body = json.loads(line)
        read = plain(adapter.validate_python(body))
        if read != body:
            sys.exit(f"not everything was read\nsent {json.dumps(body)}\nread {json.dumps(read)}")
        tools = [tool["function"]["name"] for tool in read.get("tools", [])]
        said.append({"model": read["model"], "messages": len(read["messages"]), "tools": tools})
    print(json.dumps(said))


main()
