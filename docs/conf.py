"""How the site is built: `make docs`.  Warnings are errors, and no page fetches anything from another host."""

import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]  # packages, and the extensions of this site
os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]  # `icq` in executed cells
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Kernels read no settings of whoever builds the site, and write no notes of their own.
KERNEL = ROOT / "build" / "ipython"
(KERNEL / "profile_default").mkdir(parents=True, exist_ok=True)
(KERNEL / "profile_default" / "ipython_kernel_config.py").write_text(
    "c = get_config()\nc.IPKernelApp.log_level = 'ERROR'\nc.IPKernelApp.capture_fd_output = False\n"
)
os.environ["IPYTHONDIR"] = str(KERNEL)

# Notebooks are pages as they were committed, outputs included; links to the documents are shorter from here.
PAGES = ROOT / "docs" / "notebooks"
shutil.rmtree(PAGES, ignore_errors=True)
PAGES.mkdir()
for notebook in (ROOT / "notebooks").glob("*.ipynb"):
    (PAGES / notebook.name).write_text(notebook.read_text().replace("](../docs/", "](../"))

project = "icq-bounds"
copyright = "the icq-bounds authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "plain_docstrings",
    "mathml",
    "evidence",
    "face",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "_templates"]

# Markdown as code-hosting sites read it, formulas included; headings have the addresses that they have there.
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_update_mathjax = False
suppress_warnings = [
    "myst.header",  # an included part of the README may begin below the first level
    "ref.python",  # a name in a signature that two modules have; names in prose are written in full
    "misc.highlighting_failure",  # JSON Lines is not JSON
]

# Cells run when the site is built, in a scratch folder; an exception is a warning, hence an error of the build.
nb_execution_mode = "force"  # outputs depend on the packages, not only on the cells
nb_execution_excludepatterns = ["notebooks/*"]  # the tests run these
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # formulas in what a cell says

autosummary_generate = True
autodoc_default_options = {"undoc-members": True, "exclude-members": "replace"}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True

html_theme = "pydata_sphinx_theme"
html_title = "icq-bounds"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "navigation_depth": 2,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "show_prev_next": True,
}
html_sidebars = {page: [] for page in ("index", "tutorial", "notebooks/*", "theory", "glossary", "faq", "changelog")}
