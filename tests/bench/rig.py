# SPDX-License-Identifier: BSD-2-Clause
"""What the benchmarks share: servers pinned to a core, ports, CPU time from /proc, and turns.

Other programs may use the machine meanwhile. So what is compared runs in turn, in short slices that are many; each is
judged by CPU time, and against the one that ran beside it in the same round; medians over rounds are what counts."""
import glob
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

os.environ["PATH"] += ":/usr/sbin"
TICK = os.sysconf("SC_CLK_TCK")
TRIES = 4
tmp = tempfile.mkdtemp(prefix="polder-bench.")
procs = []


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(cmd, core=0, **kw):
    p = subprocess.Popen(["taskset", "-c", str(core)] + cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kw)
    procs.append(p)
    return p


def wait_http(port, path="/"):
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench: nothing answers on port {port}{path}")


def wait_port(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"bench: nothing listens on port {port}")


def tree(pid):
    pids = [pid]
    for p in pids:
        try:
            with open(f"/proc/{p}/task/{p}/children") as f:
                pids += [int(c) for c in f.read().split()]
        except OSError:
            pass
    return pids


def cpu_in_ticks(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def cpu_in_ns(pid):
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path) as f:
            total += int(f.read().split()[0])
    return total / 1e9


def cpu(pid):
    """Seconds of CPU of a process and its children, so far."""
    one = cpu_in_ns if os.path.exists("/proc/self/schedstat") else cpu_in_ticks
    total = 0
    for p in tree(pid):
        try:
            total += one(p)
        except OSError:
            pass
    return total


def in_turns(rounds, names, measure):
    """Figures by name, a list of the rounds in which all of them have one: each round measures all, in any order. What
    returned None, because others had the CPU, is measured again in a slice that is a power of two as long."""
    results, failed = {name: [] for name in names}, ""
    for _ in range(rounds):
        row = {}
        for name in random.sample(names, len(names)):
            row[name] = next(filter(None, (measure(name, 2 ** i) for i in range(TRIES))), None)
            if row[name] is None:
                failed = name
                break
        else:
            for name in names:
                results[name].append(row[name])
    if len(results[names[0]]) * 3 < rounds:
        raise SystemExit(f"bench: hardly a round was whole; the last that failed was that of {failed}")
    return results


def ratio(one, other):
    """Of two lists of the same rounds: the median of their ratios, and what half of these lie between."""
    pairs = [a / b for a, b in zip(one, other)]
    quarter = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else pairs * 3
    return statistics.median(pairs), quarter[0], quarter[2]


def resident(pid):
    """Bytes of private memory of a process and its children."""
    total = 0
    for p in tree(pid):
        try:
            with open(f"/proc/{p}/status") as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("RssAnon:"))
        except OSError:
            pass
    return total * 1024


def has(program):
    return shutil.which(program) is not None


def clean():
    for p in procs:
        p.send_signal(signal.SIGTERM)
    for p in procs:
        try:
            p.wait(15)
        except subprocess.TimeoutExpired:
            p.kill()
    shutil.rmtree(tmp, ignore_errors=True)
