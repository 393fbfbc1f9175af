"""What the English and the Chinese site share; ``docs/en/conf.py`` and ``docs/zh_cn/conf.py`` import it."""

from __future__ import annotations

import configparser
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from vistool import __version__  # noqa: E402  the checkout's own package is documented

_metadata = configparser.ConfigParser()
_metadata.read(ROOT / 'setup.cfg', encoding='utf-8')

project = 'vistool'
author = 'The vistool authors'
copyright = author
version = release = __version__
extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx_copybutton',
]
exclude_patterns = ['_build']
source_suffix = {'.md': 'markdown', '.rst': 'restructuredtext'}

# pages
myst_enable_extensions = ['colon_fence', 'attrs_inline']
myst_heading_anchors = 4  # links to #headings work as on GitHub
templates_path = [str(DOCS / '_templates')]
html_theme = 'furo'
html_title = f'vistool {version}'
html_static_path = [str(DOCS / '_static')]
html_css_files = ['site.css']
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {'top_of_page_buttons': ['view']}  # _templates replaces it by the link to the other language
copybutton_prompt_text = r'\$ '
copybutton_prompt_is_regexp = True

# API reference
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autodoc_mock_imports = ['lightning']  # an optional package
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 100
nitpick_ignore_regex = [
    # Other packages are not linked: their sites cannot be asked without a network connection.
    (
        r'py:.*',
        r'(torch|numpy|np|nn|PIL|Image|mmengine|matplotlib|pandas|pd|threading|argparse|pathlib|collections)\..*',
    ),
    # Names of annotations, as the source has them: type variables, aliases and standard types.
    (r'py:(class|obj|data|attr|exc|func|meth|mod)', r'.*'),
]

# The address of the repository, for links to its files; without one they are copied into the site.
repository_url = _metadata.get('metadata', 'url', fallback='').rstrip('/')
repository_branch = 'main'
# linkcheck is a target of its own: it needs the network
linkcheck_ignore = [r'https?://localhost.*']

_PAGES = {'CONTRIBUTING.md': 'contributing', 'CONTRIBUTING_zh-CN.md': 'contributing', 'CHANGELOG.md': 'changelog'}
_LANGUAGES = {'en': 'zh_cn', 'zh_cn': 'en'}
_NAMES = {'en': 'English', 'zh_cn': '简体中文'}


def link_repository_files(app: Sphinx, doctree: nodes.document) -> None:
    """Makes links to files of the repository work in the site.

    A page links them as GitHub needs it, ``../../configs/dino``. Files that are pages of the site become links to the
    page. Others become links to ``repository_url``; without one, files are copied into the site, and folders are named
    without a link.
    """
    source = Path(app.srcdir)
    for node in [*doctree.findall(addnodes.pending_xref), *doctree.findall(addnodes.download_reference)]:
        if node.get('reftype') != 'myst':
            continue
        target, _, anchor = str(node['reftarget']).partition('#')
        if node.get('refdomain') == 'doc' and target.startswith(str(ROOT)):  # a Markdown file outside of the site
            target, anchor = f'{target}.md', node['reftargetid'] or ''
        elif target and not (source / target).exists() and (ROOT / target).exists():  # included from the root
            target = f'../../{target}'
        elif not target.startswith('../../'):
            continue
        file = (source / target).resolve()
        path = file.relative_to(ROOT).as_posix()
        if path in _PAGES:
            node['refdomain'], node['reftarget'], node['reftargetid'] = 'doc', _PAGES[path], anchor or None
        elif repository_url:
            kind = 'tree' if file.is_dir() else 'blob'
            uri = f'{repository_url}/{kind}/{repository_branch}/{path}' + (f'#{anchor}' if anchor else '')
            node.replace_self(nodes.reference('', '', nodes.inline('', '', *node.children), refuri=uri))
        elif file.is_dir():
            node.replace_self(nodes.literal('', path))
        elif file.exists() and isinstance(node, addnodes.pending_xref):
            node.replace_self(
                addnodes.download_reference('', '', *node.children, reftarget=target, refdoc=node['refdoc'])
            )
        # What does not exist stays, for the warning of whoever looks it up.


def mark_options(app: Sphinx, doctree: nodes.document) -> None:
    """Gives code that begins with an option a class, so that site.css can keep ``--target-category`` on one line."""
    for node in doctree.findall(nodes.literal):
        if node.astext().startswith('-'):
            node['classes'].append('option')


def add_language_link(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object) -> None:
    """Gives the templates the same page in the other language, or that language's first page."""
    here = Path(app.srcdir).name
    there = _LANGUAGES[here]
    exists = any((DOCS / there / f'{pagename}{suffix}').exists() for suffix in source_suffix)
    page = pagename if exists else 'index'
    up = '../' * (pagename.count('/') + 1)
    context['other_language'] = _NAMES[there]
    context['other_language_code'] = {'en': 'en', 'zh_cn': 'zh-CN'}[there]
    context['other_language_url'] = f'{up}{there}/{page}.html'


def setup(app: Sphinx) -> None:
    """Connects the handlers; Sphinx calls this function of each configuration."""
    app.connect('doctree-read', link_repository_files)
    app.connect('doctree-read', mark_options)
    app.connect('html-page-context', add_language_link)
