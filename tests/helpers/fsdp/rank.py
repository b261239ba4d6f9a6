"""A rank: runs `litgpt pretrain` with the arguments of each line of its input, as a process that Fabric had started."""

import json
import sys

import litgpt.__main__

for line in sys.stdin:
    sys.argv = ["litgpt", "pretrain", *json.loads(line)]
    litgpt.__main__.main()
    print("\ndone", flush=True)
