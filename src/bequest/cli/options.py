"""The options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_NETWORK, _IMAGES = "The network", "Images"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="zoo:NAME, timm:NAME, torchvision:NAME, hf:ID (or hf:./FOLDER), FILE.py:FACTORY (runs "
        "that file and calls FACTORY), or a folder that bequest saved.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_NETWORK,
        metavar="FILE",
        help="Trained weights: .safetensors, or a .pth or .ckpt that is read without running code.",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--model",
        rich_help_panel=_NETWORK,
        metavar="MODEL",
        help="The dense network of a saved folder, where its plan names none or names a .py file: "
        "code is never run because a saved plan says so.",
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_NETWORK,
        metavar="CxHxW",
        help="Shape of one input: 3x224x224; a single number is a square image; 64/512 is a row "
        "of 64 tokens of a vocabulary of 512.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_NETWORK,
        metavar="M,M,M",
        help="Per channel, subtracted from pixels in 0..1; one value serves all.",
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_NETWORK,
        metavar="S,S,S",
        help="Per channel, divided by; one value serves all.",
    ),
]
_DATA_HELP = "Labelled images: a folder per class, an .npz (x, y), IDX or .parquet."
Data = Annotated[
    Path, typer.Option(rich_help_panel=_IMAGES, metavar="PATH", show_default=False, help=_DATA_HELP)
]
DataOrText = Annotated[
    Path | None, typer.Option(rich_help_panel=_IMAGES, metavar="PATH", help=_DATA_HELP)
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="KIND:SHARE",
        help="Instead of --ratio, what the whole network is to reach: macs:0.5 or params:0.5, the "
        "share that stays; latency:0.5, of the measured time; agreement:0.99, how often it must "
        "answer as before.",
    ),
]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        rich_help_panel=_IMAGES,
        help="The first 256 images of --data, without their labels, take the place of synthetic "
        "ones; the others measure the accuracy. Of --text the first 128 windows.",
    ),
]
DataOrSource = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_IMAGES,
        metavar="PATH|NAME",
        help=f"{_DATA_HELP} Measures the accuracy before and after; pruning needs no data. Or what "
        "makes the inputs that pruning looks at: synthetic, 'synthetic(images=1024)', ...",
    ),
]
_TEXT = "A text"
Text = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_TEXT,
        metavar="FILE",
        help="Any text in UTF-8, or the column text of a .parquet, in the tokens of the tokenizer "
        "beside the network (hf:ID, hf:./FOLDER): measures the perplexity.",
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=_TEXT,
        metavar="N",
        help="Tokens of --text that the network reads at once; 128 where it bears them.",
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=_TEXT,
        metavar="N",
        help="Tokens from one window to the next; the window where none is given.",
    ),
]
Limit = Annotated[
    int | None, typer.Option(rich_help_panel=_IMAGES, metavar="N", help="Use at most N images.")
]
Offset = Annotated[
    int, typer.Option(rich_help_panel=_IMAGES, metavar="N", help="Leave out the first N images.")
]
BatchSize = Annotated[
    int, typer.Option(rich_help_panel=_IMAGES, metavar="N", help="Images per batch.")
]
Device = Annotated[
    str,
    typer.Option(
        rich_help_panel=_NETWORK, metavar="NAME", help="Where to work: cpu, cuda, cuda:1, mps."
    ),
]
Criterion = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which channels leave: l1, l2, bn-scale, ...; a wrong name lists all. obs where none "
        "is named and inputs are looked at, else l2.",
    ),
]
Groups = Annotated[
    str, typer.Option(metavar="inner|all", help="'all' prunes residual streams too.")
]
Scope = Annotated[
    str,
    typer.Option(metavar="group|global", help="Rank channels within a group or over all of them."),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="bequest|hf",
        help="What -o saves: tensors and a plan, or a folder that from_pretrained of transformers "
        "loads; then layers of a kind keep equal widths.",
    ),
]
RoundTo = Annotated[
    int,
    typer.Option(
        metavar="N", help="Widths become multiples of N in groups of at least 2N channels."
    ),
]
_ROBUST = "Robustness"
Strategy = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_ROBUST,
        metavar="NAME",
        help="Prune in small steps that change the output as little as can be guaranteed: "
        "stochastic, greedy or baseline. Takes the place of --criterion, --scope, --round-to.",
    ),
]
InputRange = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_ROBUST,
        metavar="LOW,HIGH",
        help="With --strategy: the lowest and highest value of a pixel, before --mean and --std.",
    ),
]
Step = Annotated[
    float,
    typer.Option(
        rich_help_panel=_ROBUST,
        metavar="S",
        help="With --strategy: share of a layer that leaves in one step.",
    ),
]
Alpha = Annotated[
    float,
    typer.Option(
        rich_help_panel=_ROBUST,
        metavar="A",
        help="With --strategy: weight of a change's size against its evenness, in 0..1.",
    ),
]
Attack = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_ROBUST,
        metavar="NAME",
        help="Also count the images whose class small changes can't alter: fgsm, pgd, autoattack.",
    ),
]
Certify = Annotated[
    bool,
    typer.Option(
        "--certify",
        rich_help_panel=_ROBUST,
        help="Also prove for how many images the pruned network gives the dense one's class, "
        "whatever changes by up to --eps. MODEL is a saved folder; --weights are then those of its "
        "dense network.",
    ),
]
CertifySteps = Annotated[
    int,
    typer.Option(
        rich_help_panel=_ROBUST,
        metavar="N",
        help="With --certify: steps of descent on every bound; 10 make those of large boxes 10 to "
        "30 % tighter, in about ten times the time.",
    ),
]
Eps = Annotated[
    str,
    typer.Option(
        rich_help_panel=_ROBUST,
        metavar="E,E,...",
        help="With --attack or --certify: the largest change of a pixel in 0..1.",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of everything random.")]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a self-contained page with pictures."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def examples(*lines: str) -> str:
    """The examples below a command's ``--help``, one a line."""
    return "\n\n".join(["[bold]Examples[/bold]", *(line.replace("[", "\\[") for line in lines)])
