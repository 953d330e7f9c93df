"""SIGTERM is noticed whatever the main thread does, by the process that got it, and by nobody else."""

import signal
import subprocess
import sys

import pytest

from support.waiting import PATIENCE_S

HEAD = """
import ctypes, multiprocessing, os, signal, sys, threading, time
from megatron_resume.watch.sigterm import Listener, die

asked = threading.Event()

def listening():
    listener = Listener(asked.set)
    assert listener.take()
    return listener

def told_to_myself_in(seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM)).start()

def sleep(begun):
    begun.set()
    time.sleep(600)

def wait_in_native_code(begun):
    mutex, native = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    native.pthread_mutex_lock(mutex)
    begun.set()
    native.pthread_mutex_lock(mutex)  # no signal ends this wait

def handle_it_myself(begun):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
    begun.set()
    while True:
        time.sleep(0.01)  # a handler of Python's waits for the end of a sleep that begins just after the signal came

def child(what=sleep):
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()
    process = fork.Process(target=what, args=(begun,), daemon=True)
    process.start()
    begun.wait()  # Python forgets a signal that comes before
    return process
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HEAD + program], capture_output=True, text=True, timeout=PATIENCE_S)


def test_it_is_noticed_while_the_main_thread_waits_in_native_code() -> None:
    done = run("""
listening()
told_to_myself_in(0.2)
libc = ctypes.CDLL(None)
while not asked.is_set():
    libc.sleep(1)  # as a collective that waits for others
print("noticed")
""")
    assert (done.returncode, done.stdout) == (0, "noticed\n"), done.stderr


def test_the_main_thread_leaves_from_its_sleep_with_the_code_that_is_asked_for() -> None:
    done = run("""
listener = listening()
threading.Timer(0.2, listener.have_main_thread_leave, (202,)).start()
try:
    time.sleep(600)
finally:
    print("in order")
""")
    assert (done.returncode, done.stdout) == (202, "in order\n"), done.stderr


def test_a_handler_of_the_script_is_left_to_it() -> None:
    done = run("""
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print(Listener(asked.set).take())
os.kill(os.getpid(), signal.SIGTERM)
""")
    assert (done.returncode, done.stdout) == (5, "False\n"), done.stderr


def test_a_child_that_is_told_alone_ends_and_its_parent_takes_no_notice() -> None:
    done = run("""
from megatron_resume.watch import sigterm
sigterm._CHILD_S = 0.02  # of each of the many
listener = listening()
for _ in range(50):
    process = child()
    process.terminate()  # often before it has come to its first line
    process.join()
    assert process.exitcode == -signal.SIGTERM
print(listener.was_asked, asked.wait(0.5))
""")
    assert done.stdout == "False False\n", done.stderr


@pytest.mark.parametrize(("what", "code"), [("wait_in_native_code", -signal.SIGTERM), ("handle_it_myself", 5)])
def test_such_a_child_ends_whatever_it_waits_for_and_as_it_likes(what: str, code: int) -> None:
    """A sleep that begins just after the signal came is such a wait, too."""
    done = run(f"""
listener = listening()
process = child({what})
process.terminate()
process.join()
print(process.exitcode, listener.was_asked)
""")
    assert done.stdout == f"{code} False\n", done.stderr


def test_children_of_children_end_so_too() -> None:
    done = run("""
def parent_of(begun):
    process = child(wait_in_native_code)
    process.terminate()
    process.join()
    os._exit(0 if process.exitcode == -signal.SIGTERM else 1)

listening()
fork = multiprocessing.get_context("fork")
middle = fork.Process(target=parent_of, args=(fork.Event(),))
middle.start()
middle.join()
print(middle.exitcode)
""")
    assert done.stdout == "0\n", done.stderr


def test_descriptors_that_are_not_ours_are_left_alone() -> None:
    """Where the script handles SIGTERM, a child opens files under numbers that its parent's pipe had; so do its own."""
    done = run("""
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
listener = Listener(asked.set)
assert not listener.take()
fork = multiprocessing.get_context("fork")

def inner(files):
    os._exit(5 if [os.write(file, b"hello") for file in files] == [5] * 300 else 6)

def outer():
    os.closerange(3, 1000)
    files = [os.open(os.devnull, os.O_WRONLY) for _ in range(300)]
    process = fork.Process(target=inner, args=(files,))
    process.start()
    process.join()
    os._exit(process.exitcode & 255)

process = fork.Process(target=outer)
process.start()
process.join()
print(process.exitcode)
""")
    assert done.stdout == "5\n", done.stderr


def test_signals_that_a_child_blocks_come_when_it_waits_for_them() -> None:
    done = run("""
listening()
pid = os.fork()
if pid == 0:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.kill(os.getpid(), signal.SIGUSR1)
    os._exit(signal.sigwait({signal.SIGUSR1}))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == signal.SIGUSR1)
""")
    assert done.stdout == "True\n", done.stderr


def test_what_subprocess_starts_has_one_thread_and_ends_by_sigterm() -> None:
    done = run("""
import subprocess
listening()
threads = lambda: print(len(os.listdir("/proc/self/task")), flush=True)
process = subprocess.Popen(["sleep", "600"], preexec_fn=threads)
process.terminate()
print(process.wait())
""")
    assert done.stdout == f"1\n{-signal.SIGTERM}\n", done.stderr


def test_children_outlive_what_a_launcher_sends_to_all_until_the_rank_leaves() -> None:
    done = run("""
listener = listening()
process = child()
os.kill(os.getpid(), signal.SIGTERM)
assert asked.wait(60)
process.terminate()
process.join(1)
print(process.is_alive())
listener.leaves()
process.terminate()
process.join()
print(process.exitcode)
""")
    assert done.stdout == f"True\n{-signal.SIGTERM}\n", done.stderr


@pytest.mark.parametrize("thread", ["main", "another"])
def test_it_can_end_as_if_nobody_had_handled_the_signal(thread: str) -> None:
    done = run(f"""
listening()
if {thread!r} == "main":
    die()
threading.Thread(target=die).start()
time.sleep(600)
""")
    assert done.returncode == -signal.SIGTERM, done.stderr
