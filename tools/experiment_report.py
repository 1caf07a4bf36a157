"""Write the tables and pictures of the receptive-field experiment from its results.

`python -m tools.experiment_report docs/rf_sweep/to_the_end --plan docs/rf_sweep/plan.json
--page docs/receptive_field_experiment.md --images docs/images`

A table of the page stands between the lines `<!-- NAME -->` and `<!-- end of NAME -->`, where
NAME is in `TABLES`. What is between them is replaced.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgba

import zoo
from rfkeras.errors import DatasetError, RFKerasError
from rfkeras.evaluation.bootstrap import Interval
from rfkeras.evaluation.metrics import FloatArray
from rfkeras.frontend.presets import scale_of_preset
from rfkeras.utils.files import write_text
from rfkeras.utils.plotting import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    add_axes,
    add_top_axis,
    new_figure,
    save_png,
    set_x_ticks,
    shades_of,
    style_axes,
)
from rfkeras.utils.table import Table
from tools.experiment_clips import FRONTEND
from tools.experiment_results import CONVERGED, Results
from tools.sweep_plan import Run, read_plan, rho_text

MAIN = ("plain", "plain_150_clips")
NAMES = {
    "new": "new compositions",
    "font": "unheard sound font",
    "recordings": "unheard recordings",
    "near": "same rooms and codecs",
    "far": "other rooms and codecs",
    "train": "training clips",
}
NOT_RUN = "These networks are not trained yet."
_CLIPS = {"plain": "1,000 clips", "plain_150_clips": "150 clips"}
_STYLES = {"plain": ("-", "o", BLUE), "plain_150_clips": ("--", "s", ORANGE)}


def field_pixels(rho: str) -> int:
    """Return the receptive field of the networks at one rho, in pixels."""
    plan = zoo.model_info("resnet_rf_tiny").plan_for(rho=int(rho))
    assert plan.time is not None
    return plan.time.size


def seconds(pixels: int) -> str:
    """Return the length of a receptive field in seconds, as text."""
    return f"{scale_of_preset(FRONTEND).ms(pixels) / 1000:.1f}"


def main_table(results: Results) -> str:
    """Return mAP of the plain networks at the end, by receptive field."""
    parts = []
    for condition in (name for name in MAIN if name in results.conditions):
        sets, rhos = results.sets(condition), results.rhos(condition)
        head = ["rho", "RF (pixels)", "RF (s)", "parameters", "training clips"]
        for test in sets:
            head += [NAMES[test], f"difference from rho {rhos[-1]} (95 % CI)"]
        table = Table(head)
        for rho in rhos:
            fitted = results.column(condition, rho, "train")
            pixels = field_pixels(rho)
            row = [
                rho,
                str(pixels),
                seconds(pixels),
                f"{int(results.column(condition, rho, 'parameters')[0]):,}",
                f"{fitted.mean():.3f}{'' if fitted.min() >= CONVERGED else ' *'}",
            ]
            for test in sets:
                values = results.column(condition, rho, test)
                row.append(f"{values.mean():.3f} ({values.min():.3f}-{values.max():.3f})")
                same = rho == rhos[-1]
                row.append(
                    "" if same else shown(results.difference(condition, rho, rhos[-1], test))
                )
            table.add_row(*row)
        seeds = len(results.runs(condition, rhos[0]))
        parts.append(f"**{_CLIPS[condition]}, {seeds} seeds**\n\n{table.to_markdown()}")
    return "\n".join(parts)


def optimum_table(results: Results) -> str:
    """Return whether the best rho on half of the clips is ahead on the other half."""
    table = Table(
        (
            "training clips",
            "test set",
            "rho that half of the clips choose (share of draws)",
            "lead over the lowest rho on the other half (95 %)",
            "lead over the highest rho (95 %)",
        )
    )
    for condition in (name for name in MAIN if name in results.conditions):
        for test in results.sets(condition):
            found = results.best_on_a_half(condition, test)
            chosen = sorted(found["chosen"].items(), key=lambda item: -item[1])
            shares = ", ".join(f"{rho} ({100 * share:.0f} %)" for rho, share in chosen[:3])
            leads = [shown(found[f"over {end}"]) for end in ("lowest", "highest")]
            table.add_row(_CLIPS[condition], NAMES[test], shares, *leads)
    return table.to_markdown()


def condition_table(results: Results) -> str:
    """Return the contrasts of the other conditions, where they have rho 2, 7 and 22."""
    table = Table(
        (
            "condition",
            "test set",
            "rho 2",
            "rho 7",
            "rho 22",
            "7 against 22 (95 % CI)",
            "2 against 22 (95 % CI)",
            "against plain, mean of the three (95 % CI)",
        )
    )
    values = ("2", "7", "22")
    for condition in results.conditions:
        rhos = results.rhos(condition)
        if not set(values) <= set(rhos):
            continue
        for test in results.sets(condition):
            row = [f"{results.mean(condition, rho, test):.3f}" for rho in values]
            row += [shown(results.difference(condition, rho, "22", test)) for rho in ("7", "2")]
            lead = ""
            if (
                condition not in MAIN
                and test in results.sets("plain")
                and condition != "patterns"
            ):
                terms = [
                    (sign / 3, name, rho)
                    for sign, name in ((1.0, condition), (-1.0, "plain"))
                    for rho in values
                ]
                lead = shown(results.contrast(terms, test))
            table.add_row(f"`{condition}`", NAMES[test], *row, lead)
    return table.to_markdown()


def capacity_table(results: Results) -> str:
    """Return networks of equal parameters, of one long axis, and damped ones."""
    table = Table(
        (
            "networks",
            "test set",
            "rank correlation with plain over rho",
            "against plain, rho 22",
        )
    )
    if "equal_parameters" in results.conditions:
        rhos = results.rhos("equal_parameters")
        for test in results.sets("equal_parameters"):
            mine, plain = (
                [results.mean(name, rho, test) for rho in rhos]
                for name in ("equal_parameters", "plain")
            )
            table.add_row(
                "`equal_parameters`", NAMES[test], f"{rank_correlation(mine, plain):+.2f}", ""
            )
    for condition in ("one_axis", "damped"):
        for rho in results.rhos(condition) if condition in results.conditions else ():
            for test in results.sets(condition):
                terms = [(1.0, condition, rho), (-1.0, "plain", "22")]
                estimate = shown(results.contrast(terms, test))
                table.add_row(f"`{condition}`, rho {rho}", NAMES[test], "", estimate)
    return table.to_markdown() if table.rows else NOT_RUN


def early_table(results: Results) -> str:
    """Return how well mAP early in the training foretells the order of rho at the end."""
    table = Table(
        (
            "training clips",
            "share of the steps",
            "training mAP, lowest and highest rho",
            *(
                f"{NAMES[test]}: rank correlation with the end"
                for test in results.sets("plain")
            ),
        )
    )
    for condition in (name for name in MAIN if name in results.conditions):
        rhos = results.rhos(condition)
        ends = [mean_curve(results, condition, rho, "train") for rho in (rhos[0], rhos[-1])]
        curves = {
            test: np.array([mean_curve(results, condition, rho, test) for rho in rhos])
            for test in results.sets(condition)
        }
        for point in (0, 1, 2, 3, 4, 6):
            table.add_row(
                _CLIPS[condition],
                f"{10 * (point + 1)} %",
                " and ".join(f"{curve[point]:.3f}" for curve in ends),
                *(
                    f"{rank_correlation(curve[:, point], curve[:, -1]):+.2f}"
                    for curve in curves.values()
                ),
            )
    return table.to_markdown()


def field_table(results: Results) -> str:
    """Return the exact and the effective fields, of effective.csv."""
    path = results.folder / "effective.csv"
    if not path.is_file():
        raise DatasetError(f"{path} is missing. Write it with tools.experiment_fields.")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = Table(["rho", *(row["rho"] for row in rows)])
    table.add_row(
        "exact window (pixels)", *(f"{r['exact_pixels']} x {r['exact_pixels']}" for r in rows)
    )
    for share in ("95", "50"):
        table.add_row(
            f"{share} % of the energy (pixels)",
            *(
                f"{float(r[f'frames_{share}']):.0f} x {float(r[f'bands_{share}']):.0f}"
                for r in rows
            ),
        )
    table.add_row(
        "95 % along time (s)", *(seconds(round(float(row["frames_95"]))) for row in rows)
    )
    return table.to_markdown()


def runs_table(results: Results, plan: Sequence[Run]) -> str:
    """Return how many runs of each condition are finished, and trained to the end."""
    table = Table(("condition", "rho", "runs", "of them finished", "trained to the end"))
    conditions = {run.condition.name: run.condition for run in plan}
    for condition in conditions.values():
        runs = [run.name for run in plan if run.condition.name == condition.name]
        done = [name for name in runs if name in results.names]
        fitted = [name for name in done if results.curve(name, "train")[-1] >= CONVERGED]
        rhos = ", ".join(rho_text(rho) for rho in condition.rhos)
        counts = [str(len(names)) for names in (runs, done, fitted)]
        table.add_row(f"`{condition.name}`", rhos, *counts)
    return table.to_markdown()


TABLES: dict[str, Callable[[Results], str]] = {
    "main": main_table,
    "optimum": optimum_table,
    "conditions": condition_table,
    "capacity": capacity_table,
    "early signs": early_table,
    "effective fields": field_table,
}


def shown(interval: Interval) -> str:
    """Return "+0.012 (-0.003 to +0.027)"."""
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def mean_curve(results: Results, condition: str, rho: str, column: str) -> FloatArray:
    """Return a column of runs.csv at the ten points, as a mean over the seeds."""
    curves = [results.curve(run, column) for run in results.runs(condition, rho)]
    return np.asarray(np.mean(curves, axis=0))


def rank_correlation(
    one: Sequence[float] | FloatArray, other: Sequence[float] | FloatArray
) -> float:
    """Return Spearman's rank correlation of values without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def write_page(page: Path, results: Results, plan: Sequence[Run]) -> None:
    """Replace the tables of the page.

    Args:
        page: The page.
        results: The results.
        plan: All planned runs.

    Raises:
        DatasetError: The page lacks the place of a table.
    """
    text = page.read_text(encoding="utf-8")
    tables = {"runs": runs_table(results, plan)}
    tables |= {name: table(results) for name, table in TABLES.items()}
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise DatasetError(f"{page} has no lines {begin} and {end} for a table.")
        parts = pattern.split(text)
        text = f"{begin}\n\n{table.strip()}\n\n{end}".join(parts)
    write_text(page, text)


def write_answer(path: Path, results: Results) -> None:
    """Draw mAP at the end against the receptive field, a panel for each test set."""
    sets = results.sets("plain")
    width, height = 3.3 * len(sets) + 0.4, 3.6
    figure = new_figure(
        width,
        height,
        "Trained to the end: receptive field and mAP on sounds never heard",
        "Marker: mean over seeds; thick bar: all seeds; thin bar: 95 % interval of the "
        "difference from the largest field, drawn at the marker",
    )
    shown = [name for name in MAIN if name in results.conditions]
    for number, test in enumerate(sets):
        axes = add_axes(figure, 0.6 + 3.3 * number, 0.55, 2.75, 1.95)
        for condition in shown:
            line, marker, colour = _STYLES[condition]
            rhos = results.rhos(condition)
            x = [float(field_pixels(rho)) for rho in rhos]
            values = [results.column(condition, rho, test) for rho in rhos]
            means = [each.mean() for each in values]
            axes.plot(
                x, means, line, marker=marker, ms=5, color=colour, label=_CLIPS[condition]
            )
            axes.vlines(
                x,
                *np.transpose([(v.min(), v.max()) for v in values]),
                colour,
                lw=3.5,
                alpha=0.45,
            )
            for at, rho, mean in zip(x[:-1], rhos, means, strict=False):
                lead = results.difference(condition, rho, rhos[-1], test)
                low, high = lead.low - lead.value, lead.high - lead.value
                axes.vlines(at, mean + low, mean + high, colour, lw=0.8)
        axes.set_xscale("log")
        style_axes(
            axes,
            grid="y",
            x_label="receptive field (pixels)",
            y_label="" if number else "mAP",
            label_size=8.5,
        )
        pixels = [field_pixels(rho) for rho in results.rhos("plain")]
        set_x_ticks(axes, pixels, [str(each) for each in pixels])
        add_top_axis(
            axes,
            pixels,
            [f"rho {rho}" if not n else rho for n, rho in enumerate(results.rhos("plain"))],
        )
        axes.set_title(
            NAMES[test], loc="left", fontsize=10, color=INK, fontweight="bold", pad=24
        )
    if len(shown) > 1:
        figure.axes[0].legend(frameon=False, fontsize=8.5)
    save_png(figure, path)


def write_curves(path: Path, results: Results, condition: str = "plain") -> None:
    """Draw mAP over the steps for every rho, a panel for each set."""
    columns = ("train", *results.sets(condition))
    rhos = results.rhos(condition)
    width, height = 2.75 * len(columns) + 0.9, 3.5
    figure = new_figure(
        width,
        height,
        "mAP during training, by receptive field",
        f"{_CLIPS[condition]}; mean over seeds; moving average of the weights. Dotted: "
        f"{CONVERGED}, from which a network counts as trained to the end",
    )
    shades = shades_of(BLUE)
    for number, column in enumerate(columns):
        axes = add_axes(figure, 0.55 + 2.75 * number, 0.55, 2.25, 2.1)
        for place, rho in enumerate(rhos):
            steps = results.curve(results.runs(condition, rho)[0], "step")
            curve = mean_curve(results, condition, rho, column)
            colour = (
                ORANGE
                if place == len(rhos) - 1
                else shades(0.25 + 0.75 * place / (len(rhos) - 2))
            )
            axes.plot(steps, curve, color=to_rgba(colour), lw=1.4, label=f"rho {rho}")
        style_axes(
            axes, grid="y", x_label="step", y_label="" if number else "mAP", label_size=8.5
        )
        axes.set_title(NAMES[column], loc="left", fontsize=10, color=INK, fontweight="bold")
        if column == "train":
            axes.axhline(CONVERGED, color=GREY, lw=0.8, ls=":")
    figure.axes[-1].legend(
        frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    save_png(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Write tables and pictures; 2 if something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder of tools.experiment_results")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    given = parser.parse_args(argv)
    try:
        results = Results(given.results)
        write_page(given.page, results, read_plan(given.plan))
        write_answer(given.images / "rf_at_the_end.png", results)
        write_curves(given.images / "rf_curves.png", results)
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
