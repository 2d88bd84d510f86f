"""Several processes, on one host or on many, that train as one; and how the others end when one is lost."""

import atexit
import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
from absl import flags

from experiments import cli

DISTRIBUTED = flags.DEFINE_enum(
    "distributed", "off", ["off", "auto"], "auto: the tasks of this SLURM step train as one."
)
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT at which process 0 answers; without SLURM.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many processes train as one; with --coordinator.")
PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which of them this one is, from 0; with --coordinator.")

_JOIN_SECONDS = 300  # for all processes to be there
_SAY_SECONDS = 5  # for whoever calls process 0 to say who it is; the others wait meanwhile
_LEAVE_SECONDS = 3600  # for process 0 to judge and write while the others have nothing left to do
_HEARTBEAT_SECONDS = 20  # after which jax ends all processes, if one of them lives but does not answer
_GRACE_SECONDS = 3.0  # for a process with an error to learn that the error is the loss of another
_WAIT_SECONDS = 1.0  # for a process to meet an error of its own that another one met; jax kills it after the grace
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


@contextlib.contextmanager
def connection() -> Iterator[None]:
    """Makes this process one of those that the flags name; without flags it is the only one.

    If one of them is lost, the others say which one and exit with status 1, within seconds where the process died, and
    within half a minute where its host no longer answers.

    If not all are there within five minutes, those that are say so and exit likewise.

    Raises:
      ValueError: If the flags do not fit together, or SLURM's variables are missing.
    """
    address = _address()
    if address is None:
        yield
        return
    # Imported here: memory settings and the cache of compiled programs must be made before.
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM from us, which here asks all processes to save and leave.
    jax.config.update("jax_enable_preemption_service", False)
    # Where it is too late, jax kills this process with pages about its insides.
    too_late = threading.Timer(_JOIN_SECONDS, _stop_waiting, address.values())
    too_late.daemon = True
    too_late.start()
    jax.distributed.initialize(
        **address,
        initialization_timeout=2 * _JOIN_SECONDS,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_LEAVE_SECONDS,
    )
    too_late.cancel()
    if jax.process_count() == 1:
        yield
        return
    watch = Watch(jax.process_index(), jax.process_count())
    try:
        yield
    except BaseException as error:
        watch.tell(b"failed")
        # A broken connection between devices is how the loss of a process shows first; the watch knows its name.
        time.sleep(_GRACE_SECONDS)
        # At its exit jax would wait for the others, which cannot go on.
        atexit.register(_leave, cli.STOPPED if isinstance(error, KeyboardInterrupt) else 1)
        raise
    watch.tell(b"finished")
    jax.distributed.shutdown()


class Watch:
    """A line from process 0 to every other process; the system closes it at once when either of them dies.

    The connections between devices are no help: some fail with an error that names nobody, some wait forever.
    """

    def __init__(self, process: int, num_processes: int) -> None:
        self._process = process
        self._names: dict[int, str] = {}
        self._lines: dict[int, socket.socket] = {}
        self._has_failed = False
        if process == 0:
            self._answer(num_processes)
        else:
            self._call()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def tell(self, word: bytes) -> None:
        """Tells the other ends that this process finished or failed, so that its end is no loss."""
        self._has_failed |= word == b"failed"
        for line in self._lines.values():
            with contextlib.suppress(OSError):
                line.sendall(word + b"\n")

    def _answer(self, num_processes: int) -> None:
        with socket.create_server(("", 0), backlog=num_processes) as server:
            token = secrets.token_hex(8)
            _from_first(f"{socket.gethostname()} {server.getsockname()[1]} {token}")
            deadline = time.monotonic() + _JOIN_SECONDS
            while len(self._lines) < num_processes - 1:
                server.settimeout(max(deadline - time.monotonic(), 0.1))
                try:
                    line, _ = server.accept()
                except TimeoutError as error:
                    absent = ", ".join(str(n) for n in range(1, num_processes) if n not in self._lines)
                    raise TimeoutError(
                        f"process {absent} did not call {socket.gethostname()}:{server.getsockname()[1]} within "
                        f"{_JOIN_SECONDS} s; see whether a firewall keeps the hosts apart"
                    ) from error
                # Anything may knock at a port.
                said = _read_line(line).split()
                if len(said) == 3 and said[0] == token:
                    self._lines[int(said[1])], self._names[int(said[1])] = line, said[2]
                else:
                    line.close()
        for line in self._lines.values():
            _keep_alive(line)

    def _call(self) -> None:
        host, port, token = _from_first("").split()
        self._names[0] = host
        # Where --coordinator was given, that name is known to work from here.
        host = COORDINATOR.value.rpartition(":")[0] or host
        self._lines[0] = line = socket.create_connection((host, int(port)), timeout=_JOIN_SECONDS)
        line.sendall(f"{token} {self._process} {socket.gethostname()}\n".encode())
        _keep_alive(line)

    def _look(self) -> None:
        selector = selectors.DefaultSelector()
        for process, line in self._lines.items():
            selector.register(line, selectors.EVENT_READ, process)
        while selector.get_map():
            for key, _ in selector.select():
                line, process = key.fileobj, key.data
                assert isinstance(line, socket.socket)
                try:
                    said = line.recv(4096).decode().split("\n")[0]
                except OSError:
                    said = ""
                if said in ("finished", "failed"):
                    selector.unregister(line)
                    if said == "failed":
                        threading.Timer(_WAIT_SECONDS, self._end_after, (process,)).start()
                elif said.startswith("lost "):
                    about, how, name = _parted(said)
                    if about == self._process:
                        selector.unregister(line)  # it ends because of this one, which is about to say why
                    else:
                        self._end(about, how, name)
                else:
                    self._end(process, "was lost")

    def _end_after(self, process: int) -> None:
        """Ends this process because of another's error, unless it has one of its own to tell."""
        if not self._has_failed:
            self._end(process, "ended with an error")

    def _end(self, process: int, how: str, name: str = "") -> None:
        """Says what happened, tells the others, and ends this process."""
        name = name or self._names[process]
        self.tell(f"lost {process} {name} {how}".encode())
        print(
            f"\nerror: process {process} (on {name}) {how}, and the others cannot train without it; its own output may "
            "say why. The same command goes on from the last checkpoint, with as many processes as you like, or one",
            file=sys.stderr,
        )
        _leave(1)


def _address() -> dict[str, object] | None:
    """What jax.distributed.initialize needs; None without flags."""
    given = [flag.name for flag in (COORDINATOR, NUM_PROCESSES, PROCESS_ID) if flag.present]
    if DISTRIBUTED.value == "auto":
        missing = [name for name in _SLURM if name not in os.environ]
        if given or missing:
            raise ValueError(
                f"--distributed=auto takes everything from SLURM, and --{given[0]} was given too"
                if given
                else f"--distributed=auto needs SLURM's variables, and there is no {', '.join(missing)}; start with srun, "
                "or give --coordinator, --num_processes and --process_id"
            )
        return {"cluster_detection_method": "slurm"}
    if not given:
        return None
    if len(given) < 3:
        raise ValueError(
            f"--coordinator, --num_processes and --process_id go together; got only --{', --'.join(given)}"
        )
    host, _, port = COORDINATOR.value.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator must be HOST:PORT of process 0; got {COORDINATOR.value!r}")
    if not 0 <= PROCESS_ID.value < NUM_PROCESSES.value:
        raise ValueError(
            f"--process_id must be at least 0 and below --num_processes; got {PROCESS_ID.value} of {NUM_PROCESSES.value}"
        )
    return {
        "coordinator_address": COORDINATOR.value,
        "num_processes": NUM_PROCESSES.value,
        "process_id": PROCESS_ID.value,
        "cluster_detection_method": "deactivate",
    }


def _from_first(text: str) -> str:
    """The text of process 0, in all processes; at most 300 characters."""
    from cgcnn_jax.train.parallel import from_first_process

    padded = np.frombuffer(text.encode().ljust(300, b"\0"), np.uint8)
    return bytes(np.asarray(from_first_process(padded))).rstrip(b"\0").decode()


def _read_line(line: socket.socket) -> str:
    """What the other end says first, at most 300 characters; nothing if it hangs up or says nothing."""
    line.settimeout(_SAY_SECONDS)
    try:
        # Without a buffer, which would swallow what it says later.
        with line.makefile("rb", buffering=0) as said:
            return said.readline(300).decode(errors="replace")
    except OSError:
        return ""


def _keep_alive(line: socket.socket) -> None:
    """Has the system ask a silent host whether it is still there: lost after 5 + 3 * 5 s without an answer."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _stop_waiting(*address: object) -> None:
    print(
        f"error: not all processes joined within {_JOIN_SECONDS} s of this one ({', '.join(map(str, address))}); see "
        "whether all were started with the same address and number of processes, and can reach the address",
        file=sys.stderr,
    )
    _leave(1)


def _parted(said: str) -> tuple[int, str, str]:
    """Process, what happened to it, and its name, of "lost 2 node7 was lost"."""
    _, process, name, how = said.split(" ", 3)
    return int(process), how, name


def _leave(status: int) -> None:
    """Ends this process without waiting for anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
