"""The web service of docs/embedding.md under load: so many jobs are given at once, and how long all of them take.

    python tests/benchmarks/service_load.py [JOBS]

Each job (20 if left out) trains a tiny random llama for ten steps and exports its adapter, proved in a process of its
own. Printed: when the last POST was answered, the slowest GET meanwhile, when all had finished, and the memory held.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.request
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"


def ask(url: str, data: Any = None) -> Any:
    """Asks the service."""
    body = None if data is None else json.dumps(data).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as answer:
        return json.loads(answer.read())


def main() -> None:
    """Starts the service, gives it the jobs, and waits for them."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    module = types.ModuleType("service")
    sys.modules["service"] = module
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1], module.__dict__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model"
        code = "import sys, pathlib, graftkit.testing as t; t.tiny_model_folder(pathlib.Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(model)], check=True)  # the service begins without torch
        rows = [{"prompt": f"say {n}", "completion": f"{n}!"} for n in range(60)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe = {
            "model": str(model),
            "data": {"train": str(folder / "rows.jsonl"), "max_length": 64},
            "training": {"steps": 10, "tokens_per_step": 256},
            "export": ["peft"],
        }
        module.Service.folder = folder / "runs"
        server = module.serve(0)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url, start = f"http://127.0.0.1:{server.server_address[1]}/runs", time.perf_counter()
        ids = [ask(url, recipe)["id"] for _ in range(jobs)]
        given, slowest, facts = time.perf_counter() - start, 0.0, []
        while not facts or any(found["status"] in ("waiting", "running") for found in facts):
            time.sleep(0.2)
            facts = []
            for id in ids:
                asked = time.perf_counter()
                facts.append(ask(f"{url}/{id}"))
                slowest = max(slowest, time.perf_counter() - asked)
        seconds = time.perf_counter() - start
        held = int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1000
        statuses = sorted({found["status"] for found in facts})
        if statuses != ["finished"]:
            print(json.dumps(facts[0]))
        print(json.dumps({"given": given, "slowest_get": slowest, "seconds": seconds, "held": held, "all": statuses}))
        module.stop(server)


if __name__ == "__main__":
    main()
