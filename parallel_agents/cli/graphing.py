"""The verb graph: what depends on what in a run, what became of it, and what its length was made of."""

from __future__ import annotations

from pathlib import Path

import click

from parallel_agents.cli.scene import opened, print_json, reading, run_argument


@click.command()
@run_argument
@click.option("--svg", metavar="FILE", help='Write a picture instead; "-" is standard output.')
@reading
@click.pass_context
def graph(ctx: click.Context, run: str | None, svg: str | None, as_json: bool, at: str | None) -> None:
    """Show a run as a graph of tasks, and the critical path of what happened: what let what begin, back from its last end.

    Of a run that goes on it is that of its last event.
    """
    from parallel_agents import InvalidUsage, look
    from parallel_agents.pictures.course import course

    if svg is not None and as_json:
        raise InvalidUsage("--svg and --json exclude each other", hint="leave one of them out")
    with opened(ctx) as log:
        upto = look.moment_of_run(log, at, run)
        found = course(log, look.resolve_run(log, run, upto), upto)
    if svg is not None:
        from parallel_agents.pictures.graph_svg import graph_svg

        write_picture(svg, graph_svg(found))
        return
    from parallel_agents.pictures.graph_data import graph_of

    if as_json:
        print_json(graph_of(found))
        return
    from parallel_agents.cli.graph_page import graph_page

    graph_page(found)


def write_picture(file: str, picture: str) -> None:
    """Write an SVG, and say where it is."""
    from parallel_agents.pictures.made_files import STDOUT, make_file

    size = make_file(file, picture, "picture in SVG", ("<svg",))
    if file != STDOUT:
        from parallel_agents.cli import drawing

        click.echo(f"{Path(file)}: {drawing.size(size)}", err=True)
