"""The site: notebooks, READMEs and whatever they link to, as pages that need no network. No torch here.

Formulas become MathML, which browsers draw themselves. Figures keep their alt text. A link to a notebook or to a
Markdown file leads to its page, a link to a folder to a list of its files. An output that JupyterLab folds is folded.
"""

from __future__ import annotations

import html
import os
import re
import shutil
from functools import partial
from pathlib import Path

import nbformat

from ..store.records import write_atomically

LINK = re.compile(r'(?<=href=")(?!\w+:|#)([^"#]+)|(?<=src=")(?!\w+:)([^"]+)')

REFERENCE = "api/spacedkd_lib.html"
FOLDS = """{%- extends 'lab/index.html.j2' -%}
{%- block output_group -%}
{%- set folded = cell.metadata.get('jupyter', {}).get('outputs_hidden') -%}
{{ '<details><summary>Show the output</summary>' if folded }}{{ super() }}{{ '</details>' if folded }}
{%- endblock output_group -%}"""  # nbconvert's own template does not know outputs_hidden


def build_reference(target: Path) -> None:
    """Write the reference of `import spacedkd_lib as skd` from its docstrings."""
    import pdoc
    import pdoc.render

    import spacedkd_lib as skd
    vars(skd).update({name: getattr(skd, name) for name in skd.__all__})  # pdoc asks no lazy module
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(skd.__name__, output_directory=(target / REFERENCE).parent)


def build_site(root: Path, start: list[str], target: Path, executed: Path) -> Path:
    """Write the pages of some files of a repository, and of all that they link to; return the first page.

    Args:
        root: of the repository; nothing outside it is read.
        start: files relative to it, `README.md` for example.
        executed: folder whose notebooks are shown in place of those of the same name.
    """
    root, waiting, done = root.resolve(), list(start), set()
    while waiting:
        if (name := waiting.pop()) in done:
            continue
        done.add(name)
        if not (root / name).is_dir() and Path(name).suffix not in (".md", ".ipynb"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, target / name)
            continue
        folder, shown = Path(page_of(root, name)).parent, _notebook(root, name, executed)
        if name != start[0]:
            home, reference = (os.path.relpath(place, folder) for place in (start[0], REFERENCE))
            shown.cells.insert(0, nbformat.v4.new_markdown_cell(f"[Home]({home}) · [Reference]({reference})"))
        page = LINK.sub(partial(_linked, root, folder, waiting), _page(shown, Path(name).stem))
        write_atomically(target / page_of(root, name), page)
    return target / page_of(root, start[0])


def page_of(root: Path, name: str) -> str:
    if (root / name).is_dir():
        return f"{name}/index.html"
    return str(Path(name).with_suffix(".html")) if Path(name).suffix in (".md", ".ipynb") else name


def _linked(root: Path, folder: Path, waiting: list[str], match: re.Match) -> str:
    """Return where a link of a page in a folder leads on the site; what it leads to in the repository joins waiting."""
    there = Path(os.path.normpath(root / folder / match[0]))
    if not (there.exists() and there.is_relative_to(root)):
        return match[0]
    name = there.relative_to(root).as_posix()
    waiting.append(name)
    return os.path.relpath(page_of(root, name), folder)


def _notebook(root: Path, name: str, executed: Path):
    """Return a notebook, or make one of a Markdown file or of a folder's list."""
    path = root / name
    if path.suffix == ".ipynb":
        return nbformat.read(executed / path.name if (executed / path.name).exists() else path, as_version=4)
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {name}\n\n" + "".join(
        f"- [{file.name}]({file.name})\n" for file in sorted(path.iterdir()) if file.name[0] not in "._")
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def _page(notebook, title: str) -> str:
    for output in [output for cell in notebook.cells for output in cell.get("outputs", [])]:
        alt = output.get("metadata", {}).get("image/png", {}).get("alt")
        if alt:  # nbconvert would drop it
            picture = "".join(output.data["image/png"].split())
            output.data = {"text/html": f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'}
    page, _ = _exporter().from_notebook_node(notebook, {"metadata": {"name": title}})
    return re.sub(r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->", "", page, flags=re.DOTALL)


def _exporter():
    from jinja2 import pass_context
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def block_math(self, body: str) -> str:
            return convert(body, display="block")

        def inline_math(self, body: str) -> str:
            return convert(body)

    class Exporter(HTMLExporter):
        @pass_context
        def markdown2html(self, context, source: str) -> str:
            return MarkdownWithMath(renderer=Renderer(escape=False)).render(source)

    return Exporter(raw_template=FOLDS,
                    require_js_url="", mermaid_js_url="", widget_renderer_url="")  # else fetched at each look
