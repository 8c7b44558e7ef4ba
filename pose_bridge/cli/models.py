# SPDX-License-Identifier: Apache-2.0
"""`pose_bridge models`: which weights there are, fetching them, looking whether they are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pose_bridge import models
from pose_bridge.cli.failures import ExitCode, reported

app = typer.Typer(no_args_is_help=True, help="List, fetch and verify the weights that profiles need.")
Name = Annotated[str, typer.Argument(metavar="PROFILE", help="One of `pose_bridge models list`.")]


@app.command("list")
def list_() -> None:
    """Show the profiles, what they need, under which licence, and whether it is there."""
    with reported():
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("profile", "weights", "size", "licence", "here"):
            table.add_column(name)
        for name, profile in models.PROFILES.items():
            table.add_row(name, profile.description, "", "", "", style="bold")
            for shipped in profile.shipped:
                table.add_row("", shipped, _megabytes(models.SHELF / shipped), "Apache-2.0", "yes")
            for weights in profile.weights:
                here = (models.folder_of(weights) / models.RECORD).is_file()
                gated = " (on request)" if weights.gated else ""
                table.add_row(
                    "",
                    weights.repository + gated,
                    f"{weights.size_gb:g} GB",
                    weights.licence,
                    "yes" if here else "no",
                )
        Console(highlight=False).print(table)


@app.command()
def fetch(
    name: Name,
    keep_text_encoder: Annotated[
        bool, typer.Option("--keep-text-encoder", help="It is only needed to embed further prompts.")
    ] = False,
) -> None:
    """Download a profile's weights; goes on where it was stopped."""
    with reported():
        for weights in models.profile(name).weights:
            typer.echo(f"{weights.repository}, {weights.licence}", err=True)
            models.fetch(weights, lambda file, size: typer.echo(f"  {file}, {size / 1e6:.1f} MB", err=True))
            if weights.group == "ltx":
                _embed(models.folder_of(weights), keep_text_encoder)
        typer.echo(
            f"all is there; use it with --profile {name}, or with profile:={name} when launching", err=True
        )


@app.command()
def embed(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="LTX-Video in diffusers' layout.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="In place of the usual ones; may be repeated.")
    ] = None,
) -> None:
    """Write prompts beside LTX-Video's weights, as its text encoder has them."""
    with reported():
        from pose_bridge.generators import base, ltx  # here, because --help need not wait for torch

        ltx.embed(folder.expanduser(), tuple(prompt or base.PROMPTS))


@app.command()
def verify(name: Name) -> None:
    """Compare every file of a profile's weights with what was fetched."""
    with reported():
        wrong = 0
        for weights in models.profile(name).weights:
            for file, fault in models.verify(weights):
                typer.echo(f"{models.folder_of(weights) / file}: {fault or 'whole'}")
                wrong += bool(fault)
        if wrong:
            typer.echo(f"{wrong} files are not as they should be; run: pose_bridge models fetch {name}")
            raise typer.Exit(ExitCode.ERROR)


def _megabytes(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.0f} MB"


def _embed(folder: Path, keep_text_encoder: bool) -> None:
    """Embed the usual prompts; what is only needed for that goes, unless it is to stay."""
    from pose_bridge.generators import base, ltx

    if not (folder / models.PROMPTS).is_file():
        typer.echo("  embedding the prompts", err=True)
        ltx.embed(folder, base.PROMPTS)
    if not keep_text_encoder:
        for part in ("text_encoder", "tokenizer"):
            models.drop(folder, part)
