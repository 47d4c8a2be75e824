"""A small chat client, to be watched: one HTTPS request to an API, with the key in its environment.

`OPENAI_API_KEY=... python3 examples/chatbot.py QUESTION`. docs/install.md tells what Keytrail shows of it: the program,
the name of the variable, the address and the server's name; never the key, the question or the answer.
"""  # noqa: INP001 - a program of its own

import json
import os
import sys
import urllib.error
import urllib.request

ENDPOINT = "https://api.openai.com/v1/chat/completions"


def ask(question: str, key: str, endpoint: str = ENDPOINT) -> str:
    """Return the answer, or what the API said instead."""
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(endpoint, body, headers)  # noqa: S310 - the endpoint is the caller's
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return str(json.load(answer)["choices"][0]["message"]["content"])
    except urllib.error.HTTPError as error:
        return f"the API refused: {error.code} {error.reason}"


def main() -> int:
    """Ask what the command line asks."""
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key or len(sys.argv) < 2:  # noqa: PLR2004 - the program and its question
        sys.stderr.write("usage: OPENAI_API_KEY=... python3 chatbot.py QUESTION\n")
        return 2
    sys.stdout.write(ask(" ".join(sys.argv[1:]), key) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
