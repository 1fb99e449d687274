"""The parts of a study in their order: settings, data, trials, largest stable rates, report."""

import argparse
import os
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.ending import ended
from benchmarks.progress import Progress
from examples.errors import Refused
from examples.folder import held
from tuning import report, results, summary
from tuning.cluster import Cluster, WorkerLost, finished
from tuning.recovery import mend
from tuning.results import ARMS, PROJECT, STABLE, Study, Trial
from tuning.search import oracle, search, stable_rates
from tuning.settings import Settings, begin
from tuning.space import Data, data


def main(options: argparse.Namespace, out: Path, asked: Settings) -> int:
    """Runs the study that was asked for. The exit code is 2 for what cannot be run, 130 for an interrupt."""
    go_on = (
        f"Finished trials are kept: the same command with --resume goes on. `python -m tuning.report {out}` shows them."
    )
    try:
        return ended(lambda: _run(options, out, asked), f"Make room. {go_on}")
    except Refused as error:
        print(error, file=sys.stderr)
        return 2
    except WorkerLost as error:
        print(f"{error}\n{go_on}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted. {go_on}", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, out: Path, asked: Settings) -> int:
    if options.chief:
        return member(options, out, asked)
    images = data(options.dataset, options.data_dir, options.download)
    with ExitStack() as stack:
        with held(out):
            _begin(out, asked, options.resume)
            print(f"{described(asked)}\nFolder: {out}", flush=True)
            progress = stack.enter_context(_progress(out, asked))
            if options.workers == 1:
                _search(out, asked, images, progress)
        if options.workers > 1:
            _search_together(out, asked, options, progress)  # whose chief holds the folder
        with held(out):
            stable = _stable(out, asked, images, progress) if asked.stable_steps else None
            return _finish(out, results.collect(out, asked.content(), stable))


def _finish(out: Path, study: Study) -> int:
    """Prints what was found, then writes it; the exit status."""
    if not study.trials:
        print(f"No trial of the study in {out} has ended without an error.", file=sys.stderr)
        return 1
    print(f"\n{report.table(study)}\n\n{summary.conclusion(study)}\n")
    results.write(study, out / results.FILE)
    print(f"Results: {out / results.FILE}\nReport: {report.write(study, out / 'report')}")
    return 0


def member(options: argparse.Namespace, out: Path, asked: Settings) -> int:
    """One process of several: the chief, who hands out the trials, or a worker."""
    host, _, port = options.chief.rpartition(":")
    images = data(options.dataset, options.data_dir, options.download)
    chief = options.worker_id == "chief"
    with held(out) if chief else nullcontext():
        # Not before: what is refused must leave no cluster in this process's environment.
        os.environ |= {
            "KERASTUNER_TUNER_ID": options.worker_id,
            "KERASTUNER_ORACLE_IP": host,
            "KERASTUNER_ORACLE_PORT": port,
        }
        if chief:
            _begin(out, asked, options.resume)
        with Progress("trials", total=asked.trials) as progress:
            search(out, asked, images, lambda name: progress.add(1, _line(out, name, asked)))
    return 0


def described(asked: Settings) -> str:
    """The study in a sentence."""
    low, high = (asked.learning_rate * factor for factor in asked.factors)
    also = f", and {', '.join(asked.vary)}" if asked.vary else ""
    return (
        f"{asked.trials} trials of {asked.seeds} trainings of {asked.steps} steps on {asked.dataset}: "
        f"{' and '.join(ARMS)}, learning rates from {low:g} to {high:g}{also}."
    )


def _begin(out: Path, asked: Settings, resume: bool) -> None:
    begin(out, asked, resume)
    for line in mend(out / PROJECT, oracle(out, asked), out / "set_aside"):
        print(line, file=sys.stderr)


def _progress(out: Path, asked: Settings) -> Progress:
    """That of the study: in trials, and each search for a largest stable rate counts as one."""
    searches = len(ARMS) * asked.seeds if asked.stable_steps else 0
    done = len(finished(out)) + (searches if (out / STABLE).exists() else 0)
    return Progress("study", asked.trials + searches, done)


def _search(out: Path, asked: Settings, images: Data, progress: Progress) -> None:
    search(out, asked, images, lambda name: progress.add(0, _line(out, name, asked), keep=True), progress)


def _search_together(out: Path, asked: Settings, options: argparse.Namespace, progress: Progress) -> None:
    """The same by several processes."""
    command = [f"--out={out}", *asked.options()]
    command += [f"--data-dir={options.data_dir}"] if options.data_dir else []
    done = finished(out)
    with Cluster(out, command, options.workers, options.restarts) as cluster:
        processes = ", ".join(f"{name} {process.pid}" for name, process in cluster.processes.items())
        progress.say(f"Processes: {processes}. What they print is in {out / 'logs'}.")

        def show() -> None:
            for name in finished(out):
                if name not in done:
                    done.append(name)
                    progress.add(1, _line(out, name, asked), keep=True)

        cluster.wait(options.timeout or float("inf"), show, progress.say)


def _line(out: Path, name: str, asked: Settings) -> str:
    """One line about a trial that has ended."""
    trial: Trial = results.read_trial(out / PROJECT / f"trial_{name}")
    rate = asked.learning_rate * trial.values["kerasbn/learning_rate_factor"]
    if trial.diverged:
        result = f"diverged in {len(trial.diverged)} of {len(trial.executions)}, first at step {min(trial.diverged)}"
    else:
        result = f"accuracy {trial.accuracy:.2%} ± {trial.spread:.2%}"
    return f"trial {trial.name}  {trial.arm:<10}  rate {rate:<8.3g}  {result}"


def _stable(out: Path, asked: Settings, images: Data, progress: Progress) -> dict[str, list[float | None]]:
    searches: set[tuple[str, int]] = set()

    def show(setting: Any, arm: str, seed: int, rate: float, stable: bool) -> None:
        # How many rates a search will try nobody knows: it is done when the next one begins.
        progress.add(
            float(bool(searches) and (arm, seed) not in searches),
            f"largest stable rate, {arm}, seed {seed}: {rate:.3g} is {'' if stable else 'not '}stable",
        )
        searches.add((arm, seed))

    found = stable_rates(out, asked, images, show)
    progress.add(float(bool(searches)))
    return found
