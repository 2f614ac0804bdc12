"""File names of a run directory and of a sweep: one table for all writers and readers.

Below each name: what the file holds, and the tasks that write it. ``report/run_files.py`` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RECORD = "run.json"
"""Settings, overrides, seed, versions, device; an entry for each resume. All tasks."""

RESULT = "result.json"
"""Numbers that the run ends with, or why a job of a sweep failed. All tasks, at the end."""

JOB = "job.json"
"""Overrides of a job of a sweep, from its beginning on. All tasks, within a sweep."""

METRICS = "metrics.jsonl"
"""One line for each logged step: stage, step, metrics. All tasks."""

TRIALS = "trials.jsonl"
"""One line for each scored architecture: search, rank, compare."""

SAID = "log.txt"
"""All lines that were said on the screen; a run that goes on adds to it. All tasks."""

EVENTS_PREFIX = "events.out.tfevents."
"""Start of the names of TensorBoard's files, which hold the same metrics. All tasks.

TensorBoard recognises its files by it, and shows those of a directory as one run.
"""

LOGGER_RUN = "logger.json"
"""Name of the run in MLflow or Weights & Biases, where one of these is used. All tasks."""

CHECKPOINTS = "checkpoints"
"""Folder of checkpoints: NUMBER.json, and NUMBER-NAME.safetensors. All tasks."""

LOCK = "lock"
"""Host and process that are working in the directory. All tasks."""

ARCHITECTURE = "architecture.json"
"""The winner of a search, or the architecture that retrain was given: search, retrain."""

SUPERNET = "supernet.safetensors"
"""Weights of the supernet after the last training: supernet, search, rank."""

NETWORK = "network.safetensors"
"""Weights of the retrained winner that are used, i.e. tested and handed on: search, retrain.

A copy: test, export, benchmark.
"""

NETWORK_BEST = "network_best.safetensors"
"""Weights of the best epoch on validation images, if the last ones are used: search, retrain."""

NETWORK_LAST = "network_last.safetensors"
"""Weights of the last epoch, if the best ones are used: search, retrain."""

FRONT = "front.json"
"""Architectures that no other beats in score and in costs: search, with several goals."""

HEALTH = "health.json"
"""Passes, gradients and scores of a supernet in training: search, supernet, rank."""

LATENCIES = "latency.csv"
"""Latency table of the run, where latency is a goal or is bounded: search, compare."""

BLOCK_MACS = "block_macs.json"
"""Multiply-adds of each block by epoch: search with DSO-NAS."""

RANKING = "ranking.json"
"""Measures of a ranking with intervals, by epoch: rank."""

RANK_PROGRESS = "rank/progress"
"""Stage of the metrics of a fixed sample while a supernet trains: rank, with rank.every."""

RANKING_TABLE = "ranking.csv"
"""One row for each ranked architecture: sizes, true accuracies, scores: rank."""

COMPARISON = "compare.json"
"""Regret of each search algorithm at the end, tested against the control: compare."""

COMPARISON_CURVES = "compare.csv"
"""Regret of each search algorithm after each evaluation: compare."""

NONFINITE = "nonfinite.json"
"""Place of a loss or a score that was NaN or infinite. All tasks, if it happens."""

REGRET_BY_TAU = "regret_by_tau.csv"
"""One row for each tau of the scores and each search algorithm: compare with compare.taus."""

SEARCHES = "searches.csv"
"""One row for each search: its winner, score and true accuracy: compare."""

REPORT_PAGE = "report.html"
"""All that a run or a sweep has found, as one page: every task, at its end, and every sweep."""

REPORT_TEXT = "report.md"
"""The same numbers as tables in Markdown: every task, at its end, and every sweep."""

SOURCE = "source.json"
"""Run that a network comes from: command, data, device, numbers: test, export, benchmark."""

PREDICTIONS = "predictions.csv"
"""One row for each image: its class, the predicted class, the probability: test."""

CLASSES = "classes.csv"
"""One row for each class: images, recall with its interval, precision: test."""

CONFUSION = "confusion.csv"
"""Number of images by true class (row) and predicted class (column): test."""

SPEED = "benchmark.csv"
"""One row for each engine and batch size: latency, images a second, memory: benchmark."""

BUNDLE = "bundle"
"""Folder of a network for other programs: export."""

BUNDLE_README = "README.md"
"""Origin of the network, and how it is used. In the bundle."""

BUNDLE_CODE = "model.py"
"""The network as Python that imports torch alone. In the bundle."""

BUNDLE_TORCH = "model.pt2"
"""The network as a program of torch.export. In the bundle."""

BUNDLE_ONNX = "model.onnx"
"""The network as ONNX. In the bundle."""

SWEEP_SUMMARY = "summary.csv"
"""One row for each combination of overrides: mean and s.d. In the folder of a sweep."""

SWEEP_JOBS = "jobs.csv"
"""One row for each job: status, metrics, error. In the folder of a sweep."""

SWEEP_BEGUN = "begun.jsonl"
"""One line for each job that the last command line was about. In the folder of a sweep."""

SWEEP_REFUSALS = "refused.jsonl"
"""One line for each job that was refused and has no result of its own. In the folder of a sweep."""

SWEEP_RECORD = "multirun.yaml"
"""Hydra's own record of a sweep. In the folder of a sweep."""

SWEEP_OPTIMUM = "optimization_results.yaml"
"""The best settings, by a sweeper of Hydra that optimises. In the folder of a sweep."""

ARCHITECTURE_TEXT = "architecture.mmd"
"""Graph of the winner as a flow chart of Mermaid: search, retrain."""

# Pictures, by their names without suffix: each is written as .png and as .svg.

ARCHITECTURE_PICTURE = "architecture"
"""Graph of the winner: search, retrain."""

FRONT_PICTURE = "front"
"""Score against cost of all visited architectures, and the front: search, several goals."""

BLOCK_MACS_PICTURE = "block_macs"
"""Multiply-adds of each block by epoch: search with DSO-NAS."""

RANKING_PICTURE = "ranking"
"""True accuracy against score: rank."""

SIZE_BIAS_PICTURE = "size_bias"
"""Rank error against size, with the means of its terciles: rank."""

TAU_PICTURE = "tau_by_epoch"
"""Kendall's tau-b by epoch: rank with several epochs, and their sweeps."""

SECOND_PICTURE = "also"
"""Score and true accuracy against the scores by rank.also: rank."""

COMPARISON_PICTURE = "compare"
"""Mean regret of each search algorithm by evaluation: compare."""

REGRET_BY_TAU_PICTURE = "regret_by_tau"
"""Mean regret of each search algorithm by the tau of its scores: compare with compare.taus."""

CONFUSION_PICTURE = "confusion"
"""Share of each class's images by predicted class: test."""

CALIBRATION_PICTURE = "calibration"
"""Accuracy by confidence, and how many images have which confidence: test."""

SPEED_PICTURE = "benchmark"
"""Images a second and latency by batch size: benchmark."""

SWEEP_RANKINGS_PICTURE = "rankings"
"""A panel for each ranking of a sweep: true accuracy against score."""

SWEEP_SPREAD_PICTURE = "spread"
"""Spread of the scores of each ranking of a sweep, and of the true accuracies."""

SWEEP_SECOND_PICTURES = ("also_scores", "also_truth")
"""Panels of a sweep: scores, and true accuracies, against the scores by rank.also."""

SWEEP_PROXIES_PICTURE = "proxies"
"""Kendall's tau-b against seconds of training and scoring, for each ranking of a sweep."""

SWEEP_METHODS_PICTURE = "methods"
"""Accuracies of each method of a sweep, all seeds."""


@dataclass(frozen=True)
class ResumedRun:
    """The files of a run that is to be continued.

    record: content of run.json.
    result: content of result.json if the run had ended, else None.
    """

    record: Mapping[str, Any]
    result: Mapping[str, Any] | None
