"""The site: formulas without a network, alt text, links that lead somewhere."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import spacedkd_lib as skd
from spacedkd_lib.report import pages

PNG = "iVBORw0KGgo="


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root, target = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("site")
    for folder in ("notebooks", "examples", "executed"):
        (root / folder).mkdir()
    (root / "README.md").write_text("[a](notebooks/a.ipynb) [files](examples) [away](https://example.org/b.md) [out](../c.md)")
    (root / "examples/loop.py").write_text("pass")
    (root / "notebooks/words.md").write_text("# Words\n\n### arm\n\nSee [a](a.ipynb).")
    picture = new_output("display_data", {"image/png": PNG}, metadata={"image/png": {"alt": 'rises "fast"'}})
    cells = [new_markdown_cell("$$ T^2 $$ by $x$ and `$5`, an [arm](words.md#arm)"), new_code_cell("draw()", outputs=[picture]),
             new_code_cell("6 * 7", metadata={"jupyter": {"outputs_hidden": True}},
                           outputs=[new_output("stream", text="42")])]
    nbformat.write(new_notebook(cells=[new_markdown_cell("stored")]), root / "notebooks/a.ipynb")
    nbformat.write(new_notebook(cells=cells), root / "executed/a.ipynb")
    assert pages.build_site(root, ["README.md"], target, root / "executed") == target / "README.html"
    return target


def test_every_link_leads_to_a_page_or_a_file(site):
    found = {path.relative_to(site).as_posix() for path in site.rglob("*.*")}
    assert found == {"README.html", "notebooks/a.html", "notebooks/words.html", "examples/index.html", "examples/loop.py"}
    first = (site / "README.html").read_text()
    assert 'href="notebooks/a.html"' in first and 'href="examples/index.html"' in first
    assert 'href="https://example.org/b.md"' in first and 'href="../c.md"' in first
    page = (site / "notebooks/a.html").read_text()
    assert 'href="words.html#arm"' in page and 'id="arm"' in (site / "notebooks/words.html").read_text()
    assert 'href="../README.html"' in page and f'href="../{pages.REFERENCE}"' in page


def test_formulas_and_figures_need_no_network(site):
    page = (site / "notebooks/a.html").read_text()
    assert page.count("<math") == 2 and "<code>$5</code>" in page and "mathjax" not in page.lower()
    assert f'''<img alt='rises "fast"' src="data:image/png;base64,{PNG}"''' in page
    assert not re.search(r'<(script|link)[^>]*(src|href)="http', page)


def test_an_output_that_answers_a_prediction_is_folded(site):
    folded = re.findall(r"<details>(.*?)</details>", (site / "notebooks/a.html").read_text(), re.S)
    assert len(folded) == 1 and "42" in folded[0]


def test_the_reference_names_what_stands_on_the_face(tmp_path):
    known = set(vars(skd))
    pages.build_reference(tmp_path)
    for name in set(skd.__all__) - known:  # asked anew each time, so that tests can replace it
        delattr(skd, name)
    page = (tmp_path / pages.REFERENCE).read_text()
    assert all(f'id="{name}"' in page for name in ("Recipe", "Spaced.state_dict", "run_all", "spaced"))
