"""The command `spai-lab`: what `run.py` and the user call in the environment.

Each command imports what it needs, so that `doctor` runs where nothing is installed and `copy` need not wait for torch.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

from spai_lab import doctor
from spai_lab.arena.command import add_options
from spai_lab.assignments.command import add_options as add_assignments
from spai_lab.poll.command import add_options as add_poll


def _doctor(options: argparse.Namespace) -> int:
    print(doctor.report())
    return 0


def _copy(options: argparse.Namespace) -> int:
    from spai_lab import workbook

    masters = options.notebooks or workbook.notebooks_folder()
    my = options.my or workbook.my_folder()
    written = workbook.copy_chapters(masters, my)
    fresh = [copied for copied in written if not copied.beside]
    if fresh:
        print(f"Copied {len(fresh)} chapter{'s' * (len(fresh) != 1)} to {my}.")
    for copied in written:
        if copied.beside:
            print(f"{copied.chapter} has changed: the new version is {copied.path.name}, yours stays as it is.")
    if not workbook.chapters(masters):
        print(f"There are no chapters in {masters}; run this in the project's folder, or name it with --notebooks.")
        return 1
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from spai_lab import data

    found = data.available()["mnist"]
    if isinstance(found, Path):
        return _share(found) if options.share else 0
    try:
        folder = data.fetch_mnist()
    except (OSError, data.DataUnavailable) as error:
        reason = "The next start tries again." if options.brief else " ".join(str(error).split())
        print(f"MNIST could not be downloaded; the embedded digits serve. {reason}")
        return 1
    print(f"MNIST is now in {folder}.")
    return _share(folder) if options.share else 0


def _share(folder: Path) -> int:
    from spai_lab.data.mnist import share_mnist

    print(f"Many processes now share the pixels in {share_mnist(folder)}.")
    return 0


def _data(options: argparse.Namespace) -> int:
    from spai_lab.data import available

    found = available()
    unknown = sorted(set(options.names) - set(found))
    if unknown:
        raise ValueError(f"there is no data set {unknown[0]!r}; there are {', '.join(found)}")
    for name in options.names or found:
        print(f"{name}: {found[name] or 'embedded'}")
    return int(any(isinstance(found[name], str) for name in options.names))


def _notebooks(options: argparse.Namespace) -> int:
    from spai_lab import workbook

    masters = workbook.chapters(workbook.notebooks_folder())
    chosen = [path for path in masters if path.stem.startswith(tuple(options.names) or "")]
    if not chosen:
        wanted, there = " or ".join(options.names), ", ".join(path.stem for path in masters)
        raise ValueError(f"no chapter begins with {wanted}; there are {there}")
    for path in chosen:
        start = time.perf_counter()
        size = workbook.renew(path)
        print(f"{path.stem}: {time.perf_counter() - start:.1f} s, {size / 1e6:.2f} MB", flush=True)
    return 0


def _models(options: argparse.Namespace) -> int:
    from spai_lab import training

    training.rebuild(options.names or None, seeds=options.seeds)
    return 0


def _measure(options: argparse.Namespace) -> int:
    from spai_lab.survey import (
        backdoors,
        cleanup_jobs,
        defenses,
        detection,
        evasion_attacks,
        full_evasion,
        gradient_attacks,
        poisoning,
        privacy,
        query_curves,
        robust_models,
        tension_figures,
        tension_jobs,
    )
    from spai_lab.survey.ledger import comparison_table

    if options.name == "query_curves":
        query_curves.measure_query_curves(fresh=options.fresh)
        return 0
    if options.name == "poisoning":
        for data in ("digits", "mnist"):
            measured = poisoning.measure_poisoning(data, fresh=options.fresh)
            print(f"\nTargeted attacks, {data}:\n{poisoning.targeted_table(measured)}")
        return 0
    if options.name == "backdoors":
        for data in ("digits", "mnist"):
            measured = backdoors.measure_backdoors(data, fresh=options.fresh)
            print(f"Attack success behind each defense, {data}:")
            print(backdoors.cleaning_matrix(measured, "success_after").round(3).to_string())
        print(comparison_table(backdoors.backdoors_compared(measured)))
        return 0

    if options.name == "defenses":
        for data in ("digits", "mnist"):
            settings = {"full": options.full, "fresh": options.fresh, "workers": options.workers}
            measured = defenses.measure_defenses(data, **settings)
            for norm in sorted({row["norm"] for row in measured["rows"] if row["kind"] == "judged"}):
                table = defenses.defense_matrix(measured, norm).round(2).to_string()
                print(f"\nImages that stand, {data}, {norm}:\n{table}")
            print(defenses.strongest(measured))
        print(comparison_table(defenses.defenses_compared(measured)))
        return 0

    if options.name == "detection":
        for data in ("digits", "mnist"):
            measured = detection.measure_detection(data, fresh=options.fresh)
            print(f"\nDetectors on {data}:\n{detection.detection_table(measured).round(2).to_string()}")
        print(comparison_table(detection.detection_compared(measured)))
        return 0

    if options.name == "robust_models":
        measured = robust_models.measure_robust_models(fresh=options.fresh)
        print(robust_models.robust_table(measured))
        print(comparison_table(robust_models.robust_compared(measured)))
        return 0

    if options.name in ("cleanup", "random_views"):
        if options.name == "cleanup":
            runs = [cleanup_jobs.measure_cleanup(data, fresh=options.fresh) for data in ("digits", "mnist")]
        else:
            runs = [full_evasion.measure_random_views(fresh=options.fresh)]
        for measured in runs:
            print(f"{measured['name']}: {len(measured['rows'])} rows, which `spai-lab survey --profile full` shows")
        return 0

    if options.name == "tensions":
        measured = tension_jobs.measure_tensions("mnist", fresh=options.fresh, workers=options.workers)
        print(tension_figures.tensions_in_words(measured).alt)
        return 0

    if options.name in privacy.FAMILIES:
        _, names = privacy.FAMILIES[options.name]
        for data in names:
            measured = privacy.measure_privacy(options.name, data, fresh=options.fresh, workers=options.workers)
            for title, table in privacy.tables(options.name, measured).items():
                print(f"\n{title}, {data}:")
                print("\n".join(" | ".join(row) for row in table))
        print(comparison_table(privacy.privacy_compared()))
        return 0

    run, table, compared = {
        "gradient_attacks": (
            gradient_attacks.measure_gradient_attacks,
            gradient_attacks.attack_table,
            gradient_attacks.gradient_attacks_compared,
        ),
        "evasion_attacks": (
            evasion_attacks.measure_evasion_attacks,
            evasion_attacks.summary_table,
            evasion_attacks.evasion_attacks_compared,
        ),
    }[options.name]
    measured = run(fresh=options.fresh)
    print(table(measured))
    print()
    print(comparison_table(compared(measured)))
    return 0


def _survey(options: argparse.Namespace) -> int:
    from spai_lab.survey.cluster import Certificates
    from spai_lab.survey.profiles import survey_jobs
    from spai_lab.survey.runner import run_survey, survey_table
    from spai_lab.survey.totals import totals_sentences

    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's "end now" is kept like Ctrl-C
        measured = run_survey(
            options.profile,
            workers=options.workers,
            scheduler=options.scheduler,
            certificates=Certificates(options.tls_ca, options.tls_cert, options.tls_key),
            only=options.only,
            fresh=options.fresh,
            file=options.results,
            timeout=options.timeout,
        )
    except KeyboardInterrupt as interrupt:
        print("\n".join(["", *getattr(interrupt, "__notes__", ["Interrupted before the first row was begun."])]))
        return 130
    print(survey_table(measured, survey_jobs(options.profile)))
    print(f"\n{totals_sentences()}")
    if options.figures:
        from spai_lab.survey.prints import save_all

        named = {"file": options.results.name} if options.results else {}
        print("\n".join(map(str, save_all(options.figures, options.profile, measurement=measured | named))))
    return int(any("failed" in row for row in measured["rows"]))


def _coverage(options: argparse.Namespace) -> int:
    from spai_lab.survey.coverage import update_readme

    print("README.md is now up to date." if update_readme(options.readme) else "README.md was up to date.")
    return 0


def _guides(options: argparse.Namespace) -> int:
    from spai_lab.guides.lecturers import update_guide

    print(f"{options.lecturers} {'is now' if update_guide(options.lecturers) else 'was'} up to date.")
    return 0


def _book(options: argparse.Namespace) -> int:
    from spai_lab.book.build import build

    try:
        print(build(options.out, options.only, most=options.frames))
    except KeyboardInterrupt:
        print("Stopped. The frames drawn so far are kept: the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


def _arena(options: argparse.Namespace) -> int:
    from spai_lab.arena import command

    try:
        return command.run(options)
    except KeyboardInterrupt:
        print("Stopped, and the submission's process with it.", file=sys.stderr)
        return 130


def _assignments(options: argparse.Namespace) -> int:
    from spai_lab.assignments import command

    return command.run(options)


def _poll(options: argparse.Namespace) -> int:
    from spai_lab.poll import command

    return command.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spai-lab", description="SPAI Lab: the executable survey.")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)

    def command(name, function, summary):
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(function=function)
        return sub

    command("doctor", _doctor, "say what this machine has, and what to do about what it lacks")
    sub = command("fetch", _fetch, "download MNIST where it is not there yet")
    sub.add_argument("--brief", action="store_true", help="a failure in one short line")
    sub.add_argument("--share", action="store_true", help="prepare MNIST for many students on one machine, 220 MB")
    sub = command("data", _data, "say which data is there; with names, the exit status says whether all of it is")
    sub.add_argument("names", nargs="*", help="data sets")
    sub = command("copy", _copy, "copy the chapters to the student's folder; no file is overwritten")
    sub.add_argument("--notebooks", type=Path, help="the folder of the chapters")
    sub.add_argument("--my", type=Path, help="the student's folder")
    sub = command("notebooks", _notebooks, "execute the chapters on MNIST and store them with their outputs")
    sub.add_argument("names", nargs="*", help="beginnings of chapters' names, such as 02; all if left out")
    sub = command("models", _models, "train the reference weights again, those that are not up to date")
    sub.add_argument("names", nargs="*", help="models, such as lenet-mnist; all if left out")
    sub.add_argument("--seeds", type=int, help="how many seeds to train of each")
    sub = command("measure", _measure, "measure what a chapter shows; interrupted, it continues")
    sub.add_argument(
        "name",
        nargs="?",
        default="gradient_attacks",
        choices=[
            "gradient_attacks",
            "evasion_attacks",
            "query_curves",
            "poisoning",
            "backdoors",
            "defenses",
            "detection",
            "robust_models",
            "membership",
            "extraction",
            "leakage",
            "inversion",
            "secrets",
            "private",
            "audit",
            "protected",
            "scattered",
            "tuning",
            "encrypted",
            "parties",
            "cleanup",
            "random_views",
            "tensions",
            "blocks",
        ],
        help="what to measure",
    )
    sub.add_argument("--fresh", action="store_true", help="measure every row again")
    sub.add_argument("--full", action="store_true", help="defenses: every attack that applies, in every norm; hours")
    sub.add_argument(
        "--workers", type=int, default=1, help="defenses and privacy: how many rows to measure at a time; default 1"
    )
    sub = command("survey", _survey, "measure every method of the survey; interrupted, it continues")
    sub.add_argument("--profile", choices=["quick", "full"], default="quick", help="quick: digits; full: MNIST, faces")
    sub.add_argument("--only", nargs="+", default=(), metavar="ROW", help="ids of the rows to measure; all if left out")
    sub.add_argument("--workers", type=int, default=2, help="rows at a time, each on one thread; default 2")
    sub.add_argument("--fresh", action="store_true", help="measure again what is there")
    sub.add_argument("--timeout", type=float, help="seconds after which a row is given up; the profile's if left out")
    sub.add_argument(
        "--results", type=Path, metavar="FILE", help="where the rows are kept; in data/results if left out"
    )
    sub.add_argument("--figures", type=Path, metavar="FOLDER", help="draw the survey's tables and figures there")
    sub.add_argument(
        "--scheduler",
        metavar="URL",
        help="measure on a Dask cluster, tls://host:port; only on one that you trust, since it runs code",
    )
    for name, what in (("ca", "the authority of both ends"), ("cert", "our certificate"), ("key", "its private key")):
        sub.add_argument(
            f"--tls-{name}", type=Path, metavar="FILE", help=f"{what}, PEM; else from Dask's configuration"
        )
    sub = command("book", _book, "build the workbook as web pages that need neither a kernel nor a network")
    sub.add_argument("--only", nargs="+", default=(), metavar="NAME", help="beginnings of chapters' names, such as 02")
    sub.add_argument("--out", type=Path, default=Path("build/book"), metavar="FOLDER", help="default: build/book")
    sub.add_argument("--frames", type=int, default=120, metavar="N", help="most pictures of an explorable; default 120")
    sub = command("arena", _arena, "let a submitted attack meet all defenses, or a defense all attacks")
    add_options(sub)
    sub = command("assignments", _assignments, "export the exercises as a course that nbgrader grades")
    add_assignments(sub)
    sub = command("poll", _poll, "count a class's predictions from the progress.json files that it hands in")
    add_poll(sub)
    sub = command("coverage", _coverage, "write the README's table of methods and its ledger anew")
    sub.add_argument("--readme", type=Path, default=Path("README.md"), help="the file with the tables")
    sub = command("guides", _guides, "write the lecturer's guide anew from the chapters and the notes on them")
    sub.add_argument(
        "--lecturers", type=Path, default=Path("docs/LECTURERS.md"), metavar="FILE", help="default: docs/LECTURERS.md"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status; errors become one sentence."""
    options = _parser().parse_args(arguments)
    try:
        return options.function(options)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"spai-lab {options.command}: {error}", file=sys.stderr)
        return 1
