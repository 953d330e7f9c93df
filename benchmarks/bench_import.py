"""Promise: `import megatron_resume.auto` costs at most 50 ms in a process that has imported Megatron."""

import json
import sys

from promise import Result, compile_package, fresh_process, main, result

ROUNDS = 9
# Megatron takes seconds to import, so it is imported once, and each round is a fork of that process, in which
# the garbage collector leaves Megatron's objects alone: it would copy every page that the fork shares.
PROGRAM = f"""
import gc, json, os, sys, time
begin = time.perf_counter()
import megatron.training.arguments, megatron.training.checkpointing, megatron.training.training
import megatron.training.async_utils, megatron.training.initialize, megatron.training.yaml_arguments
megatron_ms = 1e3 * (time.perf_counter() - begin)

def one_round():
    begin, cpu = time.perf_counter(), time.process_time()
    import megatron_resume.auto
    ms, cpu_ms = 1e3 * (time.perf_counter() - begin), 1e3 * (time.process_time() - cpu)
    from megatron_resume.adapter.versions import hook_set
    states = {{hook_set.state(hook) for hook in hook_set.hooks}}
    assert states == {{"active"}}, states
    return [ms, cpu_ms]

gc.collect()
gc.freeze()
rounds = []
for _ in range({ROUNDS}):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps(one_round()).encode())
        os._exit(0)
    os.wait()
    rounds.append(json.loads(os.read(reader, 1000)))
print(json.dumps([megatron_ms, rounds]))
"""


def measure() -> Result:
    compile_package()
    # The last line is ours: importing Megatron prints.
    output = fresh_process("-W", "ignore", "-c", PROGRAM).splitlines()[-1]
    megatron_ms, rounds = json.loads(output)
    cpu_ms = sorted(cpu for _, cpu in rounds)[ROUNDS // 2]
    return result(
        "import of megatron_resume.auto",
        [wall for wall, _ in rounds],
        50,
        "ms",
        of_that_cpu_time=round(cpu_ms, 1),
        megatron_itself=round(megatron_ms),
    )


if __name__ == "__main__":
    sys.exit(main(measure))
