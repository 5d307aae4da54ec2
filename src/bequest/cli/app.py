"""The commands in one place, and what becomes of an error."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from bequest._version import __version__
from bequest.cli.compare import compare
from bequest.cli.demo import demo
from bequest.cli.evaluate import evaluate
from bequest.cli.export import export
from bequest.cli.inspect import inspect
from bequest.cli.options import examples
from bequest.cli.prune import prune
from bequest.cli.train import train
from bequest.errors import BequestError

app = typer.Typer(
    name="bequest",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(
    epilog=examples("bequest demo", "bequest demo -o my-demo", "bequest demo --json > demo.json")
)(demo)
app.command(
    epilog=examples(
        "bequest prune zoo:resnet56 --weights resnet56.safetensors --ratio 0.3 -o out/",
        "bequest prune my_net.py:make --size 3x224x224 --ratio 'layer*.conv1=0.5,*=0' -o out/",
        "bequest prune zoo:resnet50 --weights resnet50.pth --ratio 0.5 --groups all "
        "--data val/ --limit 5000 --html report.html -o out/",
        "bequest prune out/ --sparsity 0.5 --recover filter -o sparse/",
    )
)(prune)
app.command(
    epilog=examples(
        "bequest evaluate out/ --data test.npz",
        "bequest evaluate zoo:resnet56 --weights resnet56.safetensors --data test.npz --latency",
        "bequest evaluate out/ --model my_net.py:make --data images/ --limit 1000",
        "bequest evaluate out/ --weights dense.safetensors --data test.npz --certify --eps 0.01",
    )
)(evaluate)
app.command(
    epilog=examples(
        "bequest compare zoo:resnet56 --weights resnet56.safetensors --data test.npz "
        "--ratios 0.3,0.5,0.7 --restorers none,merge,lbyl",
        "bequest compare my_net.py:make --size 3x32x32 --mean 0.5 --std 0.5 --data images/ "
        "--criterion l1,l2 --html curves.html -o cells.csv",
    )
)(compare)
app.command(
    epilog=examples(
        "bequest inspect zoo:resnet56",
        "bequest inspect my_net.py:make --size 3x224x224",
        "bequest inspect out/ --json",
        "bequest inspect timm:vit_tiny_patch16_224",
    )
)(inspect)
app.command(
    epilog=examples(
        "bequest export out/ -o model.onnx",
        "bequest export out/ --model my_net.py:make -o model.onnx --batch-size 8",
    )
)(export)
app.command(
    epilog=examples(
        "bequest train zoo:resnet20 --data train.npz --hyperspherical --sparsity 0.5 "
        "--epochs 20 -o out/",
        "bequest train zoo:resnet20 --data train.npz --epochs 20 -o out/ --resume",
        "bequest train my_net.py:make --size 3x64x64 --mean 0.5 --std 0.25 --data images/ "
        "--epochs 30 --accelerator cuda --devices 4 --precision bf16-mixed -o out/",
    )
)(train)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"bequest {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Makes trained PyTorch networks smaller and restores their accuracy in closed form.

    No training and no data. Every command takes --json; results go to the standard output, notes
    and progress to the standard error. Exit codes: 0 done, 1 the work failed, 2 the call was wrong.
    """


def main() -> None:
    """Runs the command line; the console script ``bequest``.

    A mistake of the user ends in one message on the standard error and the error's exit code.
    ``BEQUEST_DEBUG=1`` shows the traceback of an error that nobody expected.
    """
    try:
        app()
    except BequestError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("BEQUEST_DEBUG") == "1":
            raise
        first = next(iter(str(error).splitlines()), "")
        notes = "".join(f"{note}\n" for note in getattr(error, "__notes__", ()))
        _fail(
            f"unexpected {type(error).__name__}: {first}\n{notes}"
            "This is a fault of bequest or of the model's own code; "
            "BEQUEST_DEBUG=1 shows where it arose.",
            code=1,
        )


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
