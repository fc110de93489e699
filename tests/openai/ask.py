"""Asks a server with the client of the openai package, once streaming and once not, and says what it heard.

The base URL is the one argument, the request stands on standard input.
"""

import json
import sys

from openai import OpenAI


def streamed(client, request):
    heard = {"text": "", "calls": {}, "stop": None, "usage": None}
    for chunk in client.chat.completions.create(**request):
        if chunk.usage:
            heard["usage"] = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens]
        for choice in chunk.choices:
            heard["text"] += choice.delta.content or ""
            heard["stop"] = choice.finish_reason or heard["stop"]
            for call in choice.delta.tool_calls or []:
                known = heard["calls"].setdefault(call.index, {"id": call.id, "name": call.function.name, "arguments": ""})
                known["arguments"] += call.function.arguments or ""
    heard["calls"] = list(heard["calls"].values())
    return heard


def whole(client, request):
    request = {name: value for name, value in request.items() if name not in ("stream", "stream_options")}
    answer = client.chat.completions.create(**request)
    message = answer.choices[0].message
    calls = [
        {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
        for call in message.tool_calls or []
    ]
    usage = [answer.usage.prompt_tokens, answer.usage.completion_tokens]
    return {"text": message.content or "", "calls": calls, "stop": answer.choices[0].finish_reason, "usage": usage}


def main():
    client = OpenAI(base_url=sys.argv[1], api_key="no key is needed", max_retries=0)
    request = json.load(sys.stdin)
    print(json.dumps([streamed(client, request), whole(client, request)]))


main()
