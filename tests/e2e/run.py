"""Runs the end-to-end cases: tests/e2e/run.py --build DIR [--full] [--only WORD] [--keep]. Ends with a count."""

import argparse
import importlib
import pathlib
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
import kilntest  # noqa: E402


def find_cases(word, full):
    for path in sorted(pathlib.Path(__file__).resolve().parent.glob("cases_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in vars(module).items():
            if name.startswith("case_") and (not word or word in name) and (full or not getattr(function, "only_full", False)):
                yield name[5:], function


def run_case(name, function, build, full):
    start = time.monotonic()
    world = kilntest.World(build, full)
    outcome, text = "ok", ""
    try:
        function(world)
    except kilntest.Skip as missing:
        outcome, text = "skipped", f"needs {missing}"
    except Exception:  # a failing case must not end the run
        outcome, text = "FAILED", traceback.format_exc()
    except BaseException:
        world.close()
        raise
    left = world.close()
    if left and outcome == "ok":
        outcome, text = "FAILED", "left behind:\n" + "\n".join(left)
    print(f"{outcome:8} {name} ({time.monotonic() - start:.1f}s)", flush=True)
    if text:
        print(text, flush=True)
    return outcome


def main():
    kilntest.end_cleanly()
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    outcomes = [run_case(name, function, options.build, options.full) for name, function in find_cases(options.only, options.full)]
    passed, failed, skipped = (outcomes.count(word) for word in ("ok", "FAILED", "skipped"))
    print(f"{passed} passed, {failed} failed, {skipped} skipped" if outcomes else "0 passed, 1 failed")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
