#!/usr/bin/env python3
"""Measures the library against the kernel's queues and other ways between processes, as ratios.

    benches/run.py                 everything: prints a table, writes docs/PERFORMANCE.md and docs/performance.svg
    benches/run.py --short         under a minute, for tests: fails if a ratio is clearly worse than it has been
    benches/run.py --only WORD...  rows whose name contains one of the words; nothing is written

One program (bench-sysv) runs on the kernel's queues and, preloaded, on ours; the others are built from the same workloads
(workloads.c) on other transports. All take turns, several rounds of A B A B; a row is the median of the rounds' ratios. Times of
a shared machine mean nothing; ratios within one round mean something.

What cannot be built or run is skipped, and said. Standard library only.
"""

import argparse
import contextlib
import datetime
import fnmatch
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HERE = os.path.join(ROOT, "benches")
BUILD = os.path.join(ROOT, "c-tests", "build", "bench")
PAGE = os.path.join(ROOT, "docs", "PERFORMANCE.md")
CHART = os.path.join(ROOT, "docs", "performance.svg")
MARKS = ("<!-- written by `make bench`: begin -->", "<!-- written by `make bench`: end -->")

KERNEL, US = "kernel", "usysv"
PEERS = ["POSIX mq", "pipe", "unix datagram", "Boost", "iceoryx2", "bare ring"]


class Row:
    """A workload, what is wanted of it, and the floor below which the short form fails.

    `wanted` and `aim` are times the kernel's speed. A row with `unit` is an amount of ours, not a ratio, and then `wanted` is
    its most. `floor` is for --short: a ratio that even a busy machine reached in at least one round of many.
    """

    def __init__(self, name, text, wanted=None, aim=None, unit=None, peers=(), floor=None, one_cpu=False, result=""):
        self.name, self.text, self.wanted, self.aim, self.unit = name, text, wanted, aim, unit
        self.peers, self.floor, self.one_cpu = peers, floor, one_cpu
        self.workload = name.removesuffix("-one-cpu").split(":")[0]
        self.key = self.workload + (":" + name.split(":")[1] if ":" in name else "")


ALL = tuple(PEERS)
NO_ICEORYX = tuple(peer for peer in PEERS if peer != "iceoryx2")
SLEEPERS = ("POSIX mq", "pipe", "unix datagram", "Boost", "iceoryx2")

ROWS = [
    Row("pair-1", "pair, 1 B", 15, 25, peers=ALL),
    Row("pair-64", "pair, 64 B", 15, 25, peers=ALL, floor=3.5),
    Row("pair-1024", "pair, 1 KiB", 9, 15, peers=ALL, floor=3),
    Row("pair-8192", "pair, 8 KiB", 7, 10, peers=ALL, floor=3),
    Row("burst-64", "burst, 64 B", 18, 30, peers=ALL, floor=3.5),
    Row("stream-64", "stream, 64 B", 8, 15, peers=ALL, floor=1.2),
    Row("stream-1024", "stream, 1 KiB", 4, peers=ALL, floor=0.7),
    Row("stream-8192", "stream, 8 KiB", 3, peers=ALL, floor=0.6),
    Row("stream-64-one-cpu", "stream, 64 B, one CPU", 8, peers=ALL, one_cpu=True, floor=2),
    Row("stream-1024-one-cpu", "stream, 1 KiB, one CPU", peers=ALL, one_cpu=True),
    Row("stream-8192-one-cpu", "stream, 8 KiB, one CPU", peers=ALL, one_cpu=True),
    Row("ping-pong", "ping-pong, two CPUs", 60, 120, peers=ALL),
    Row("ping-pong:p99", "ping-pong, two CPUs, 99th percentile", 60, 120, peers=ALL),
    Row("ping-pong-one-cpu", "ping-pong, one CPU", 1, 1.3, peers=ALL, one_cpu=True, floor=0.5),
    Row("workers-4-64", "4 senders, 4 receivers, 64 B", 4, peers=NO_ICEORYX, floor=0.5),
    Row("workers-16-64", "16 senders, 16 receivers, 64 B", 6, peers=NO_ICEORYX),
    Row("workers-16-1024", "16 senders, 16 receivers, 1 KiB", 1.2, peers=NO_ICEORYX),
    Row("request-reply-1", "server and 1 client", None, peers=NO_ICEORYX),
    Row("request-reply-4", "server and 4 clients", 1.3, 2, peers=NO_ICEORYX, floor=0.35),
    Row("request-reply-16", "server and 16 clients", 1.3, 2, peers=NO_ICEORYX),
]
KINDS = [
    ("equal", "by type, others all of another type"),
    ("different", "by type, others each of their own"),
    ("lowest", "lowest type"),
    ("except", "MSG_EXCEPT"),
    ("noerror", "by type, cut by MSG_NOERROR"),
]
DEPTHS = [1, 16, 256, 4000, 16000]
for kind, text in KINDS:
    for depth in DEPTHS:
        deep = depth == DEPTHS[-1]
        ROWS.append(Row(f"typed-{kind}-{depth}", f"{text}, behind {depth}", 300 if deep and kind != "noerror" else None,
                        floor=40 if deep and kind == "different" else None))
ROWS += [
    Row("fifo-16000", "first in first out, 16000 deep", 15, floor=3),
    Row("queues-1000", "1000 queues in turn", 12, 25, peers=NO_ICEORYX),
    Row("msgget", "`msgget` of an existing key", 2, floor=1.3),
    Row("nothing", "`msgrcv` that finds nothing", 5, floor=1.5),
    Row("stat", "`IPC_STAT`", 5, floor=2),
    Row("create", "create and remove", 1 / 8, 1 / 2, peers=ALL, floor=0.006),
    Row("first-use", "a process that uses a queue once", 1 / 1.1),
    Row("slow-peer:cpu", "CPU per round trip, answer after 1 ms", 1 / 1.3, peers=ALL, floor=0.4),
    Row("blocked:wakes-per-s", "wake-ups a second while blocked", 2, unit="/s", floor=3.1, peers=SLEEPERS),
    Row("blocked:cpu-us-per-s", "CPU while blocked, µs a second", None, unit="µs/s", peers=ALL),
    Row("start-up", "added to the start of /bin/true", 0.3, unit="ms"),
    Row("memory:kib", "an empty queue", 8, unit="KiB", floor=12, peers=("Boost",)),
    Row("memory-64:kib", "a full queue, 256 of 64 B", None, unit="KiB", peers=("Boost",)),
    Row("memory-1024:kib", "a full queue, 16 of 1 KiB", None, unit="KiB", peers=("Boost",)),
]
assert len({row.name for row in ROWS}) == len(ROWS)

# Instructions per operation, counted by callgrind, which no load disturbs.
INSTRUCTIONS_FILE = os.path.join(HERE, "instructions.txt")


def say(*words):
    print(*words, flush=True)


# --- building ---------------------------------------------------------------------------------------------------------


class Program:
    def __init__(self, name, path, environment=None, prefix=()):
        self.name, self.path, self.environment, self.prefix = name, path, environment or {}, tuple(prefix)


def run_quietly(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


class Skips:
    def __init__(self):
        self.said = []

    def add(self, what, why):
        line = f"skipped: {what}: {why}"
        if line not in self.said:
            self.said.append(line)
            say(line)


def build(peers, skips):
    """Compiles the programs; answers those that came out, by name."""
    os.makedirs(BUILD, exist_ok=True)
    cc, cxx = os.environ.get("CC", "cc"), os.environ.get("CXX", "c++")
    warn = ["-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    source = lambda name: os.path.join(HERE, name)
    out = lambda name: os.path.join(BUILD, name)
    made = {}

    def compile_(name, target, command):
        done = run_quietly(command)
        if done.returncode == 0:
            made[name] = out(target)
            return True
        first = next((line for line in done.stdout.splitlines() if "error" in line), done.stdout.strip()[-200:])
        skips.add(name, first)
        return False

    workloads = out("workloads.o")
    done = run_quietly([cc, "-std=c11", *warn, "-c", source("workloads.c"), "-o", workloads])
    if done.returncode:
        sys.exit(f"bench: workloads.c does not compile\n{done.stdout}")
    plain = [("System V", "sysv", "bench-sysv"), ("POSIX mq", "posix_mq", "bench-posix-mq"), ("pipe", "pipe", "bench-pipe"),
             ("unix datagram", "unix_socket", "bench-unix-socket"), ("bare ring", "ring", "bench-ring")]
    for name, file, target in plain:
        if name == "System V" or name in peers:
            compile_(name, target, [cc, "-std=c11", *warn, source(file + ".c"), workloads, "-o", out(target), "-lrt", "-lpthread"])
    if "Boost" in peers:
        compile_("Boost", "bench-boost", [cxx, "-O2", "-Wall", "-Wextra", "-Werror", source("boost.cpp"), workloads, "-o",
                                          out("bench-boost"), "-lrt", "-lpthread"])
    if "iceoryx2" in peers:
        target = out("iceoryx2")
        done = run_quietly(["cargo", "build", "--release", "--locked", "--manifest-path", source("iceoryx2/Cargo.toml"),
                            "--target-dir", target]) if shutil.which("cargo") else None
        if done is None or done.returncode:
            words = done.stdout.strip().splitlines() if done else ["no cargo"]
            skips.add("iceoryx2", next((line for line in words if line.startswith("error")), words[-1]))
        else:
            library = os.path.join(target, "release", "libbench_iceoryx2.a")
            compile_("iceoryx2", "bench-iceoryx2", [cc, workloads, library, "-o", out("bench-iceoryx2"), "-lm", "-lpthread", "-ldl"])
    if "System V" not in made:
        sys.exit("bench: bench-sysv could not be built")
    return made


# --- running ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_one_cpu(wanted):
    """Children run on one CPU, all of them on the same."""
    before = os.sched_getaffinity(0)
    if wanted:
        os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Failure(Exception):
    pass


def run(program, arguments, seconds=120):
    """Runs a program; answers its results by name, None for what it cannot do."""
    environment = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "USYSV_DIR")}
    environment.update(program.environment)
    command = [*program.prefix, program.path, *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        raise Failure(f"took more than {seconds} s") from None
    if process.returncode:
        raise Failure((errors.strip().splitlines() or [f"status {process.returncode}"])[-1])
    results = {}
    for line in output.splitlines():
        name, value = line.rsplit(" ", 1)
        results[name] = None if value == "-" else float(value)
    return results


def measure(rows, programs, rounds, milliseconds, skips):
    """Runs what the rows need, everybody in turn; answers times[row name][program name] = values of the rounds."""
    times = {row.name: {} for row in rows}
    jobs = {}
    for row in rows:
        jobs.setdefault((row.workload, row.one_cpu), []).append(row)
    broken = set()
    started = time.monotonic()
    for number in range(rounds):
        for (workload, one_cpu), wanting in jobs.items():
            with on_one_cpu(one_cpu):
                for program in programs:
                    if program.name not in (KERNEL, US) and not any(program.name in row.peers for row in wanting):
                        continue
                    if (program.name, workload, one_cpu) in broken:
                        continue
                    try:
                        results = run(program, ["--milliseconds", str(milliseconds), workload])
                    except Failure as failure:
                        skips.add(f"{program.name}, {workload}", str(failure))
                        broken.add((program.name, workload, one_cpu))
                        continue
                    for row in wanting:
                        value = results.get(row.key)
                        if value is not None and (program.name in (KERNEL, US) or program.name in row.peers):
                            times[row.name].setdefault(program.name, []).append(value)
        say(f"round {number + 1} of {rounds}, {time.monotonic() - started:.0f} s")
    return times


def ratios(values, name):
    """The ratios of the rounds: how many times the kernel's speed."""
    pairs = zip(values.get(KERNEL, []), values.get(name, []))
    return [kernel / other for kernel, other in pairs if other > 0 and kernel > 0]


def amount(row, values, name):
    """What a row with a unit says of a program: the median of the rounds."""
    there = values.get(name)
    if not there:
        return None
    if row.name == "start-up":
        if name != US or not values.get(KERNEL):
            return None
        return statistics.median((us - kernel) / 1e6 for kernel, us in zip(values[KERNEL], there))
    return statistics.median(there)


class Outcome:
    """What came out for a row: a ratio or an amount of ours, and of others."""

    def __init__(self, row, values):
        self.row = row
        if row.unit:
            self.us = amount(row, values, US)
            self.spread = None
            self.peers = {name: amount(row, values, name) for name in row.peers}
            self.kernel = amount(row, values, KERNEL)
            self.best = min(values[US]) if values.get(US) and row.name != "start-up" else self.us
            self.reached = None if row.wanted is None or self.us is None else self.us <= row.wanted * 1.005
        else:
            mine = ratios(values, US)
            self.us = statistics.median(mine) if mine else None
            self.spread = (min(mine), max(mine)) if mine else None
            self.best = max(mine) if mine else None
            self.kernel = 1
            self.peers = {}
            for name in row.peers:
                theirs = ratios(values, name)
                self.peers[name] = statistics.median(theirs) if theirs else None
            self.reached = None if row.wanted is None or self.us is None else self.us >= row.wanted


# --- telling ----------------------------------------------------------------------------------------------------------


def number(value):
    if value is None:
        return "–"
    if value == 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value)))) if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def wanted_text(row):
    if row.wanted is None:
        return ""
    if row.unit:
        return f"≤ {number(row.wanted)}"
    text = number(row.wanted)
    return f"{text} (aim {number(row.aim)})" if row.aim else text


def verdict(outcome):
    if outcome.reached is None:
        return ""
    if not outcome.reached:
        return "no"
    aim = outcome.row.aim
    return "yes, and the aim" if aim and outcome.us >= aim else "yes"


def table(header, lines):
    yield "| " + " | ".join(header) + " |"
    yield "|" + "|".join("---" if place == 0 else "---:" for place in range(len(header))) + "|"
    for line in lines:
        yield "| " + " | ".join(line) + " |"


def machine():
    """What it ran on, without names of its own."""
    model = "unknown processor"
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    virtual = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        virtual = ", virtual machine" if re.search(r"^flags.*\bhypervisor\b", file.read(), re.M) else ""
    system = "Linux"
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release().get("PRETTY_NAME", system)
    kernel = re.match(r"[0-9.]+", platform.release())
    cc = run_quietly([os.environ.get("CC", "cc"), "--version"]).stdout.splitlines()[0]
    rust = run_quietly(["rustc", "--version"]).stdout.strip() if shutil.which("rustc") else "no rustc"
    cpus = len(os.sched_getaffinity(0))
    return (f"{model}, {cpus} CPUs{virtual}; Linux {kernel.group() if kernel else '?'}, {system}; {cc}; {rust}")


def load():
    return f"{os.getloadavg()[0]:.1f}"


def version():
    git = lambda *words: run_quietly(["git", "-C", ROOT, *words])
    described = git("describe", "--always")
    changed = git("status", "--porcelain", "--", "src", "benches", "Cargo.toml", "Cargo.lock").stdout.strip()
    return described.stdout.strip() + (", changed" if changed else "") if described.returncode == 0 else "unknown"


def page(outcomes, command, rounds, milliseconds, load_before, skips):
    by_name = {outcome.row.name: outcome for outcome in outcomes}
    yield (f"Written {datetime.date.today()} by `{command}` at version {version()}: {rounds} rounds of about {milliseconds} ms for "
           f"each entry, the fastest quarter of which counts; everybody in turn; medians of the rounds.")
    yield ""
    yield f"The machine: {machine()}. Load average before and after: {load_before}, {load()}."
    yield ""
    yield "![Times the kernel's speed, logarithmic](performance.svg)"
    yield ""
    yield "### Times the kernel's speed"
    yield ""
    yield "*us*: the median, behind it the lowest and the highest round. *reached*: the median is at least what was wanted."
    yield ""
    plain = [outcome for outcome in outcomes if not outcome.row.unit and not outcome.row.name.startswith("typed-")]
    header = ["", "us", "", "wanted", "reached", *PEERS]
    lines = []
    for outcome in plain:
        spread = f"{number(outcome.spread[0])} … {number(outcome.spread[1])}" if outcome.spread else ""
        lines.append([outcome.row.text, f"**{number(outcome.us)}**", spread, wanted_text(outcome.row), verdict(outcome),
                      *(number(outcome.peers.get(peer)) for peer in PEERS)])
    yield from table(header, lines)
    yield ""
    yield "### Receiving behind others"
    yield ""
    yield ("Sends a message and receives it, with so many others in the queue that are not wanted. Times the kernel's speed. The last "
           "column: how many times longer it takes behind 16000 than behind 1, ours; at most 1.5 is wanted.")
    yield ""
    lines = []
    for kind, text in KINDS:
        there = [by_name.get(f"typed-{kind}-{depth}") for depth in DEPTHS]
        if not all(there):
            continue
        last = there[-1]
        lines.append([text, *(number(outcome.us) for outcome in there), wanted_text(last.row), verdict(last),
                      number(last.depth_cost)])
    yield from table(["", *(f"behind {depth}" for depth in DEPTHS), "wanted", "reached", "deep / shallow"], lines)
    yield ""
    yield "### Amounts"
    yield ""
    lines = []
    for outcome in outcomes:
        if outcome.row.unit:
            kernel = outcome.kernel if outcome.row.name != "start-up" else None
            lines.append([outcome.row.text, f"**{number(outcome.us)}** {outcome.row.unit}", wanted_text(outcome.row),
                          verdict(outcome), number(kernel), *(number(outcome.peers.get(peer)) for peer in PEERS)])
    yield from table(["", "us", "wanted", "reached", "kernel", *PEERS], lines)
    if skips.said:
        yield ""
        for line in skips.said:
            yield f"- {line}"


def write_page(text):
    begin, end = MARKS
    with contextlib.suppress(FileNotFoundError), open(PAGE, encoding="utf-8") as file:
        whole = file.read()
        if begin in whole and end in whole:
            head, rest = whole.split(begin, 1)
            tail = rest.split(end, 1)[1]
            text = f"{head}{begin}\n\n{text}\n\n{end}{tail}"
            with open(PAGE, "w", encoding="utf-8") as file:
                file.write(text)
            return
    sys.exit(f"bench: {os.path.relpath(PAGE, ROOT)} has lost its marks: {begin} and {end}")


# --- the chart --------------------------------------------------------------------------------------------------------

COLOURS = {"POSIX mq": "#8c6d31", "pipe": "#7f7f7f", "unix datagram": "#17becf", "Boost": "#d62728", "iceoryx2": "#9467bd",
           "bare ring": "#2ca02c"}


def chart(outcomes):
    """Bars of ours from 1, a tick where it is wanted, a dot for each other; one logarithmic scale."""
    rows = [o for o in outcomes if not o.row.unit and o.us is not None
            and (not o.row.name.startswith("typed-") or o.row.name.endswith(f"-{DEPTHS[-1]}"))]
    left, right, top, step = 330, 30, 74, 21
    width = 1000
    height = top + step * len(rows) + 30
    values = [v for o in rows for v in [o.us, o.row.wanted or o.us, *filter(None, o.peers.values())] if v > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    place = lambda value: left + (width - left - right) * (math.log10(value) - low) / (high - low)
    escape = lambda text: text.replace("&", "&amp;").replace("<", "&lt;").replace("`", "")
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" '
           f'role="img" aria-label="Times the kernel\'s speed">')
    yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    yield '<text x="12" y="22" font-size="16" font-weight="bold">Times the speed of the kernel’s queues</text>'
    x = 12
    yield f'<rect x="{x}" y="36" width="22" height="11" fill="#1f77b4"/><text x="{x + 28}" y="46">usysv</text>'
    x += 80
    yield f'<rect x="{x}" y="34" width="3" height="15" fill="#000000"/><text x="{x + 9}" y="46">wanted</text>'
    x += 80
    for peer in PEERS:
        yield f'<circle cx="{x}" cy="42" r="4.5" fill="{COLOURS[peer]}"/><text x="{x + 9}" y="46">{escape(peer)}</text>'
        x += 26 + 8 * len(peer)
    for power in range(low, high + 1):
        at = place(10.0**power)
        colour = "#555555" if power == 0 else "#dddddd"
        label = f"{10.0**power:g}"
        yield f'<line x1="{at:.1f}" y1="{top - 6}" x2="{at:.1f}" y2="{height - 24}" stroke="{colour}"/>'
        yield f'<text x="{at:.1f}" y="{height - 8}" text-anchor="middle" fill="#555555">{label}×</text>'
    for place_in_list, outcome in enumerate(rows):
        y = top + step * place_in_list
        start, end = sorted((place(1), place(outcome.us)))
        fill = "#1f77b4" if outcome.us >= 1 else "#e08214"
        yield f'<text x="{left - 10}" y="{y + 12}" text-anchor="end">{escape(outcome.row.text)}</text>'
        yield f'<rect x="{start:.1f}" y="{y + 3}" width="{max(end - start, 1):.1f}" height="11" fill="{fill}"/>'
        if outcome.row.wanted:
            yield f'<rect x="{place(outcome.row.wanted) - 1.5:.1f}" y="{y}" width="3" height="17" fill="#000000"/>'
        for peer, value in outcome.peers.items():
            if value:
                yield (f'<circle cx="{place(value):.1f}" cy="{y + 8.5}" r="4" fill="{COLOURS[peer]}" fill-opacity="0.85">'
                       f"<title>{escape(peer)}: {number(value)}×</title></circle>")
    yield "</svg>"


# --- the short form ---------------------------------------------------------------------------------------------------


def instructions(programs, skips):
    """Counts instructions per operation under callgrind; answers (name, counted, most) for each line of the file.

    Each workload is run twice, with few operations and with many; the difference is free of start and end. One process does it
    all, and valgrind writes down what came together after each call of `measure`.
    """
    if not shutil.which("valgrind"):
        skips.add("instructions per operation", "no valgrind")
        return
    us = next(program for program in programs if program.name == US)
    with open(INSTRUCTIONS_FILE, encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip() and not line.startswith("#")]
    few_and_many = lambda name: (4, 24) if name == "create" else (200, 1200)
    arguments = ["--operations", "1000", "pair-64"]  # warms up: part 1, not looked at
    for name, _ in lines:
        for operations in few_and_many(name):
            arguments += ["--operations", str(operations), name]
    with tempfile.TemporaryDirectory(prefix="usysv-bench.") as directory:
        out = os.path.join(directory, "out")
        prefix = ["valgrind", "--tool=callgrind", "--dump-after=measure", "--callgrind-out-file=" + out]
        try:
            run(Program(US, us.path, us.environment, prefix), arguments)
            totals = []
            for part in range(2, 2 * len(lines) + 2):
                with open(f"{out}.{part}", encoding="utf-8", errors="replace") as file:
                    totals.append(next(int(line.split()[1]) for line in file if line.startswith("totals:")))
        except (Failure, OSError, StopIteration) as failure:
            skips.add("instructions per operation", f"valgrind failed: {failure}")
            return
    for place, (name, most) in enumerate(lines):
        few, many = few_and_many(name)
        yield name, (totals[2 * place + 1] - totals[2 * place]) / (many - few), float(most)


def short(rows, programs, skips, rounds, milliseconds):
    """Fails for what is clearly worse than it has been: no round reached the floor, or more instructions than there should be."""
    passed = failed = 0
    outcomes = {}

    def look(some, rounds, milliseconds):
        times = measure(some, programs, rounds, milliseconds, skips)
        outcomes.update((row.name, Outcome(row, times[row.name])) for row in some)

    def is_good(row):
        best = outcomes[row.name].best
        return best is not None and (best <= row.floor if row.unit else best >= row.floor)

    look(rows, rounds, milliseconds)
    again = [row for row in rows if outcomes[row.name].best is not None and not is_good(row)]
    if again:
        say("once more, and longer: " + ", ".join(row.name for row in again))
        look(again, 2 * rounds, 2 * milliseconds)
    for row in rows:
        outcome = outcomes[row.name]
        if outcome.best is None:
            skips.add(row.name, "nothing was measured")
            continue
        good = is_good(row)
        limit = f"at most {number(row.floor)} {row.unit}" if row.unit else f"at least {number(row.floor)}"
        say(f"{'ok' if good else 'FAIL'} {row.name}: {number(outcome.us)} (best {number(outcome.best)}), {limit} is expected")
        passed, failed = passed + good, failed + (not good)
    for name, counted, most in instructions(programs, skips):
        good = counted <= most
        say(f"{'ok' if good else 'FAIL'} {name}: {counted:.0f} instructions, at most {most:.0f} are expected")
        passed, failed = passed + good, failed + (not good)
    say(f"bench: {passed} passed, {failed} failed, {len(skips.said)} skipped")
    return 1 if failed or not passed else 0


# --- all of it --------------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="under a minute; fails on a clear regression")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows whose name contains a word or matches a pattern")
    parser.add_argument("--rounds", type=int, help="how often everybody has a turn (7; short: 3)")
    parser.add_argument("--milliseconds", type=float, help="how long one measurement takes, about (80; short: 20)")
    parser.add_argument("--no-peers", action="store_true", help="the kernel and us only")
    parser.add_argument("--instructions", action="store_true", help="only count instructions per operation, and print them")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (3 if arguments.short else 7)
    milliseconds = arguments.milliseconds or (20 if arguments.short else 80)

    rows = [row for row in ROWS if row.floor] if arguments.short else ROWS
    if arguments.only:
        rows = [row for row in rows if any(word in row.name or fnmatch.fnmatch(row.name, word) for word in arguments.only)]
    if not rows:
        sys.exit("bench: no such row")
    library = os.environ.get("USYSV_LIB") or os.path.join(ROOT, os.environ.get("CARGO_TARGET_DIR", "target"), "release/libusysv.so")
    library = os.path.abspath(library)
    if not os.path.exists(library):
        sys.exit(f"bench: no {os.path.relpath(library, ROOT)}; build it first: make build")

    skips = Skips()
    peers = [] if arguments.no_peers or arguments.short else PEERS
    made = build(peers, skips)
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="usysv-bench.", dir=base) as directory:
        # A kernel namespace of our own, where that is permitted: nothing is left there, and nobody else's is met.
        alone = ["unshare", "--ipc"] if run_quietly(["unshare", "--ipc", "true"]).returncode == 0 else []
        kernel = Program(KERNEL, made["System V"], prefix=alone)
        us = Program(US, made["System V"], {"LD_PRELOAD": library, "USYSV_DIR": directory})
        programs = [kernel, us] + [Program(peer, made[peer]) for peer in peers if peer in made]
        try:
            run(us, ["--operations", "10", "pair-64"])
        except Failure as failure:
            sys.exit(f"bench: the library does not work here: {failure}")
        if arguments.instructions:
            for name, counted, most in instructions(programs, skips):
                say(f"{name} {counted:.0f} (most {most:.0f})")
            return 0
        try:
            run(kernel, ["--operations", "10", "pair-64"])
        except Failure as failure:
            skips.add("everything but instructions", f"the kernel's queues do not work here ({failure}), so there is nothing to compare with")
            if arguments.short:
                rows = []
            else:
                return 0
        if arguments.short:
            return short(rows, programs, skips, rounds, milliseconds)

        load_before = load()
        times = measure(rows, programs, rounds, milliseconds, skips)
        outcomes = [Outcome(row, times[row.name]) for row in rows]
        by_name = {outcome.row.name: outcome for outcome in outcomes}
        for kind, _ in KINDS:
            deep, shallow = (times.get(f"typed-{kind}-{depth}", {}).get(US) for depth in (DEPTHS[-1], DEPTHS[0]))
            if deep and shallow:
                by_name[f"typed-{kind}-{DEPTHS[-1]}"].depth_cost = statistics.median(d / s for d, s in zip(deep, shallow))
        for outcome in outcomes:
            spread = f"{number(outcome.spread[0])} … {number(outcome.spread[1])}" if outcome.spread else ""
            others = ", ".join(f"{peer} {number(value)}" for peer, value in outcome.peers.items() if value is not None)
            unit = outcome.row.unit or "x"
            say(f"{outcome.row.name:22} {number(outcome.us):>7} {unit:5} {spread:16} wanted {wanted_text(outcome.row) or '–':16} "
                f"{verdict(outcome):17} {others}")
        if rows is ROWS and peers:
            command = "make bench" if len(sys.argv) == 1 else "benches/run.py " + " ".join(sys.argv[1:])
            write_page("\n".join(page(outcomes, command, rounds, f"{milliseconds:g}", load_before, skips)))
            with open(CHART, "w", encoding="utf-8") as file:
                file.write("\n".join(chart(outcomes)) + "\n")
            say(f"written: {os.path.relpath(PAGE, ROOT)}, {os.path.relpath(CHART, ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
