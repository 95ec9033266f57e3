"""The survey's runner: whatever a row does, the others are measured and kept; and an interrupted run goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from spai_lab.survey import cluster, runner
from spai_lab.survey.cluster import Certificates, check_workers, connected
from spai_lab.survey.headline import Headline
from spai_lab.survey.profiles import survey_jobs
from spai_lab.survey.row_process import attempt, stop, versions
from spai_lab.survey.runner import head_of, measured_rows, run_rows, run_survey, survey_table
from tests.survey.fake_rows import HEADLINE, Fake, first_quick_then_waiting, started

HEAD = {"name": "fakes", "data": "none"}
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log")


@pytest.fixture
def fakes(log):
    """`fakes("fails", "is_well")`: rows that do this, named after it, a number added where it is there twice."""

    def make(*names):
        rows = [f"{name}{names[:place].count(name) or ''}" for place, name in enumerate(names)]
        return [Fake(row, name, log) for row, name in zip(rows, names, strict=True)]

    return make


@pytest.fixture
def file(tmp_path):
    return tmp_path / "rows.json"


@pytest.fixture
def survey_of(monkeypatch, fakes, file):
    """`survey_of(names, ...)`: `run_survey` on fake rows."""

    def survey(names, **settings):
        monkeypatch.setattr(runner, "survey_jobs", lambda profile: fakes(*names))
        return run_survey("quick", **{"file": file, "workers": 1, **settings})

    return survey


def gone(pids, seconds=30):
    """Whether all these processes end in time; what nobody has collected yet counts as ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        living = [pid for pid in pids if psutil.pid_exists(pid)]
        if not any(status(pid) not in (psutil.STATUS_ZOMBIE, None) for pid in living):
            return True
        time.sleep(0.05)
    return False


def status(pid):
    try:
        return psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return None


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_run_in_other_processes_on_one_thread_each_and_keep_their_order(fakes, file):
    jobs = fakes("takes_time", "sees", "takes_time", "sees")
    measured = run_rows(file, HEAD, jobs, workers=2, seed=5)
    assert [row["row"] for row in measured["rows"]] == [job.row for job in jobs]
    assert all(row["found"] == 5 and row["seconds"] >= 0 for row in measured["rows"])
    pids = {row["pid"] for row in measured["rows"]}
    assert os.getpid() not in pids and len({row["parent"] for row in measured["rows"]}) == 2, "two workers of joblib"
    assert all(row["threads"] == ["1", "1", "1"] for row in measured["rows"] if "threads" in row)
    assert measured["machine"]["threads"] == 1 and measured["name"] == "fakes"
    assert json.loads(file.read_text(encoding="utf-8")) == measured
    assert gone(pids), "the workers end with the run, and what measured for them does too"


@posix
def test_a_row_that_fails_dies_or_never_ends_is_marked_and_the_rest_goes_on(fakes, file, log):
    names = ["fails", "kills_itself", "exits", "leaves", "hangs", "tells_an_object", "is_well"]
    rows = {row["row"]: row for row in run_rows(file, HEAD, fakes(*names), workers=2, timeout=2)["rows"]}
    assert "failed" not in rows["is_well"] and rows["is_well"]["found"] == 0
    assert {name: row["failed"] for name, row in rows.items() if "failed" in row} == {
        "fails": "ValueError: eps is -1; accepted: 0 to 1",
        "kills_itself": "ChildProcessError: its process was ended by SIGKILL",
        "exits": "ChildProcessError: its process ended with status 7; its last words: no license",
        "leaves": "SystemExit: 3",
        "hangs": "TimeoutError: not done within 2 s",
        "tells_an_object": "TypeError: Object of type object is not JSON serializable",
    }
    assert rows["fails"]["where"].startswith("fake_rows.py:")
    assert all("found" not in row and row["seconds"] >= 0 for row in rows.values() if "failed" in row)
    assert gone(map(int, Path(f"{log}.pids").read_text(encoding="utf-8").split())), "what a late row started ends, too"


def test_a_later_run_measures_what_failed_or_is_missing_and_nothing_else(fakes, file, log):
    jobs = fakes("is_well", "fails_once", "fails")
    first = run_rows(file, HEAD, jobs[:2], workers=1)["rows"]
    assert [("failed" in row) for row in first] == [False, True]
    second = run_rows(file, HEAD, jobs, workers=1)["rows"]
    assert [row.get("failed") for row in second] == [None, None, "ValueError: eps is -1; accepted: 0 to 1"]
    assert second[0] == first[0]
    assert started(log) == ["is_well", "fails_once", "fails_once", "fails"]


def test_an_unknown_job_class_is_a_failed_row(file):
    assert attempt(Nameless("a"), 0, timeout=None, run="nameless")["failed"].startswith("ModuleNotFoundError")
    stop("nameless")


class Nameless(Fake):
    """A job that no process can find by its name."""

    def __init__(self, row):
        super().__init__(row, "is_well", "")


Nameless.__module__ = "nowhere"


@posix
def test_stopping_a_run_ends_a_row_that_is_being_measured(fakes, log):
    answers = []
    [job, late] = fakes("hangs", "is_well")
    thread = threading.Thread(target=lambda: answers.append(attempt(job, 0, timeout=None, run="run")))
    thread.start()
    while not Path(f"{log}.pids").exists():
        time.sleep(0.02)
    time.sleep(0.1)
    stop("run")
    thread.join(timeout=30)
    assert answers[0]["failed"].startswith("ChildProcessError")
    assert gone(map(int, Path(f"{log}.pids").read_text(encoding="utf-8").split()))
    assert attempt(late, 0, timeout=None, run="run")["failed"].startswith("InterruptedError")
    assert started(log) == ["hangs"]


@posix
def test_a_process_that_measures_ends_with_its_worker(log):
    command = [sys.executable, "-m", "spai_lab.survey.row_process"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, cwd=Path(__file__).parents[2], start_new_session=True)
    fields = {"row": "hangs", "does": "hangs", "log": log}
    process.stdin.write(
        json.dumps({"job": "tests.survey.fake_rows:Fake", "fields": fields, "seed": 0}).encode() + b"\n"
    )
    process.stdin.flush()
    while not Path(f"{log}.pids").exists():
        time.sleep(0.02)
    time.sleep(0.1)
    process.stdin.close()
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert gone(map(int, Path(f"{log}.pids").read_text(encoding="utf-8").split()))
    process.stdout.close()


# --- interrupted ------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from spai_lab import cli
from spai_lab.survey import runner
from tests.survey.fake_rows import first_quick_then_waiting
if __name__ == "__main__":
    runner.survey_jobs = lambda profile: first_quick_then_waiting(sys.argv[2])
    sys.exit(cli.main(["survey", "--results", sys.argv[1], "--workers", "2"]))
"""


def listen() -> None:
    """Ctrl-C reaches a program again, also where these tests run in the background of a shell, which makes it deaf."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@posix
@pytest.mark.parametrize("end", [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)])
def test_an_interrupted_run_keeps_its_rows_ends_its_workers_and_goes_on(tmp_path, file, log, root, monkeypatch, end):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "encoding": "utf-8"}
    variables = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(script), str(file), log]
    process = subprocess.Popen(command, **settings, env=variables, start_new_session=True, preexec_fn=listen)
    while len(started(log)) < 5 or len(json.loads(file.read_text(encoding="utf-8"))["rows"]) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    workers = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    end(process.pid)
    said, _ = process.communicate(timeout=60)
    kept = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert process.returncode == 130
    assert f"Interrupted: 3 of 6 rows are kept in {file}; the same call goes on there." in said
    assert {row["row"] for row in kept} == {"quick0", "quick1", "quick2"}
    assert workers and gone(workers)

    Path(f"{log}.go").touch()
    monkeypatch.setattr(runner, "survey_jobs", lambda profile: first_quick_then_waiting(log))
    rows = run_survey("quick", file=file, workers=1)["rows"]
    assert rows[:3] == kept, "what was measured is not measured again"
    assert [row["row"] for row in rows] == [job.row for job in first_quick_then_waiting(log)]
    assert not any("failed" in row for row in rows)
    assert {row: started(log).count(row) for row in started(log)} == dict.fromkeys(
        ("quick0", "quick1", "quick2"), 1
    ) | {
        "waiting0": 2,
        "waiting1": 2,
        "waiting2": 1,  # two were being measured when Ctrl-C came
    }


# --- the survey's file ------------------------------------------------------------------------------------------------


def test_the_head_says_what_the_rows_depend_on(survey_of):
    measured = survey_of(["is_well"], seed=3)
    assert measured["name"] == "survey_quick" and measured["data"] == "digits" and measured["seed"] == 3
    assert measured["versions"] == versions() and set(versions()) == {"torch", "numpy", "python", "spai_lab"}
    assert measured["weights"] and all(name.endswith("-digits") for name in measured["weights"])
    assert measured["machine"].keys() >= {"system", "processor", "threads"} and measured["measured"].startswith("20")


def test_the_full_profile_depends_on_the_measurements_that_it_tells_of():
    head = head_of("full", 0)
    assert "backdoors_mnist" in head["measurements"] and not any("survey" in name for name in head["measurements"])
    assert head_of("quick", 0)["measurements"] == {}


def test_only_measures_what_is_named_and_keeps_the_others(survey_of, log):
    names = ["is_well", "sees", "takes_time"]
    survey_of(names)
    rows = survey_of(names, only=["sees"], fresh=True)["rows"]
    assert [row["row"] for row in rows] == names
    assert started(log) == [*names, "sees"]
    assert survey_of(names, only=["sees"])["rows"] == rows and started(log) == [*names, "sees"]
    with pytest.raises(ValueError, match="only is pdg; accepted: ids of the taxonomy's methods, such as is_well"):
        survey_of(names, only=["pdg"])


def test_other_settings_measure_anew_but_never_for_some_rows_alone(survey_of, file, log):
    survey_of(["is_well", "sees"])
    with pytest.raises(
        ValueError, match=r"rows.json was measured with other seed; accepted: the same, or another file"
    ):
        survey_of(["is_well", "sees"], only=["sees"], seed=1)
    assert len(json.loads(file.read_text(encoding="utf-8"))["rows"]) == 2
    assert survey_of(["is_well", "sees"], seed=1)["rows"][0]["found"] == 1
    assert started(log) == ["is_well", "sees"] * 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"profile": "slow"}, ["profile", "'slow'", "'quick', 'full'"]),
        ({"workers": 0}, ["workers", "0"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"timeout": 0}, ["timeout", "above 0"]),
        ({"scheduler": "tcp://192.0.2.7:8786"}, ["scheduler", "trust", "unpickled", "loopback"]),
    ],
)
def test_bad_settings_are_named(refuses, file, settings, words):
    refuses(run_survey, {"profile": "quick", "file": file, **settings}, *words)
    assert not file.exists()


def test_the_table_shows_headlines_failures_and_what_is_missing(fakes, log):
    jobs = fakes("is_well", "fails", "sees")
    rows = [jobs[0].key | {"headlines": [HEADLINE], "seconds": 30.0}]
    rows += [jobs[1].key | {"failed": "ValueError: eps is -1", "seconds": 30.0}]
    lines = survey_table({"rows": rows}, jobs).splitlines()
    assert lines[2] == "| is_well | rows; fake | 50.0 % | 10.0 to 90.0 | 4 | 30.0 |"
    assert lines[3] == "| fails | failed: ValueError: eps is -1 | | | | 30.0 |"
    assert lines[-1] == "1 rows measured, 1 failed, 1 missing; 1.0 minutes of computing."
    assert Headline.from_row(HEADLINE).row | {"interval": [0.1, 0.9]} == HEADLINE


# --- a cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A Dask cluster of two workers over TLS: its address and our certificates; Dask makes these in memory."""
    distributed = pytest.importorskip("distributed")
    security = distributed.Security.temporary()
    folder = tmp_path_factory.mktemp("tls")
    names = {"ca": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}
    for name, field in names.items():
        (folder / name).write_text(getattr(security, field), encoding="utf-8")
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "protocol": "tls://"}
    with distributed.LocalCluster(**settings, security=security, silence_logs=50) as local:
        yield local.scheduler_address, Certificates(**{name: folder / name for name in names})


def test_a_cluster_measures_the_same_rows_and_survives_the_deadly_ones(secured, survey_of, fakes, file):
    address, certificates = secured
    assert address.startswith("tls://")
    names = ["takes_time", "takes_time", "fails", "exits", "sees", "is_well"]
    measured = survey_of(names, scheduler=address, certificates=certificates, timeout=60)
    rows = {row["row"]: row for row in measured["rows"]}
    assert [row["row"] for row in measured["rows"]] == [job.row for job in fakes(*names)]
    assert rows["takes_time"]["parent"] != rows["takes_time1"]["parent"], "both workers take part"
    assert rows["fails"]["failed"] == "ValueError: eps is -1; accepted: 0 to 1"
    assert rows["exits"]["failed"].startswith("ChildProcessError: its process ended with status 7")
    assert rows["sees"]["threads"] == ["1", "1", "1"] and "failed" not in rows["is_well"]
    assert measured["machine"]["cluster"] == "Dask, 2 workers"
    assert gone([row["pid"] for row in rows.values() if "pid" in row]), "nothing is left behind on the cluster"
    assert [row for row in survey_of(names)["rows"] if "failed" not in row] == [
        row for row in measured["rows"] if "failed" not in row
    ], "here the run goes on with the rows of the cluster"


@posix
def test_an_interrupted_run_leaves_nothing_behind_on_the_cluster(secured, fakes, log):
    with connected(*secured) as client:
        rows = measured_rows(fakes("is_well", "hangs"), seed=0, workers=2, timeout=None, client=client)
        assert next(rows)["row"] == "is_well"
        while not Path(f"{log}.pids").exists():
            time.sleep(0.02)
        time.sleep(0.1)
        rows.close()
    assert gone(map(int, Path(f"{log}.pids").read_text(encoding="utf-8").split()))


def test_a_cluster_refuses_certificates_of_another_authority(secured, monkeypatch, tmp_path):
    distributed = pytest.importorskip("distributed")
    stranger = distributed.Security.temporary()
    for name, field in {"ca": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}.items():
        (tmp_path / name).write_text(getattr(stranger, field), encoding="utf-8")
    monkeypatch.setattr(cluster, "WAIT", "2 s")
    strange = Certificates(tmp_path / "ca", tmp_path / "cert", tmp_path / "key")
    with pytest.raises(RuntimeError, match="certificates of the same authority"), connected(secured[0], strange):
        pass


@pytest.mark.parametrize(
    "scheduler",
    [
        *("tcp://192.0.2.7:8786", "tcp://example.org:8786", "tcp://0.0.0.0:8786", "tcp://localhost.example.org:8786"),
        *(
            "127.0.0.1:8786",
            "ws://127.0.0.1:8786",
            "inproc://127.0.0.1:1",
            "tls://127.0.0.1",
            "tls://:8786",
            "tls://h:x",
        ),
        *("tcp://127.0.0.1@192.0.2.7:8786", "", None, 8786),
    ],
)
def test_an_address_without_tls_or_beyond_this_machine_is_refused(refuses, scheduler):
    refuses(cluster.check_scheduler, {"scheduler": scheduler}, "scheduler", "tls://host:port", "trust", "loopback")


@pytest.mark.parametrize("scheduler", ["tls://example.org:8786", "tcp://127.0.0.1:8786", "tcp://[::1]:8786"])
def test_tls_and_loopback_are_accepted(scheduler):
    cluster.check_scheduler(scheduler)


def test_tls_without_certificates_names_what_is_missing_and_where_to_say_it(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match=r"TLS lacks ca and cert; .*--tls-ca.*distributed.comm.tls"):
        cluster.security_of("tls://example.org:8786", Certificates())
    with pytest.raises(ValueError, match=r"ca is .*gone\.pem"):
        cluster.security_of("tls://example.org:8786", Certificates(ca=tmp_path / "gone.pem"))
    with pytest.raises(ValueError, match=r"cert given, and scheduler is 'tcp://127\.0\.0\.1:1'"):
        cluster.security_of("tcp://127.0.0.1:1", Certificates(cert=tmp_path / "cert"))


def test_certificates_may_be_named_in_dasks_configuration(tmp_path):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    named = {"ca-file": "ca.pem", "client.cert": "cert.pem", "client.key": "key.pem"}
    with dask.config.set({f"distributed.comm.tls.{name}": path for name, path in named.items()}):
        security = cluster.security_of("tls://example.org:8786", Certificates())
    assert security.tls_ca_file == "ca.pem" and security.tls_client_key == "key.pem" and security.require_encryption


def test_without_dask_the_way_to_install_it_is_told(monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install -e \"\.\[cluster\]\""), connected("tcp://127.0.0.1:1"):
        pass


def test_workers_with_other_versions_are_refused():
    class Client:
        def wait_for_workers(self, count, timeout):
            pass

        def run(self, function):
            return {"a": function(), "b": function() | {"torch": "1.0"}}

    with pytest.raises(RuntimeError, match=r"torch 1\.0 there and .* here"):
        check_workers(Client(), "tls://example.org:8786")


def test_the_fakes_stand_for_the_survey(log):
    job = survey_jobs("quick")[0]
    assert {"row", "profile"} <= job.key.keys() & Fake("a", "is_well", log).key.keys()
