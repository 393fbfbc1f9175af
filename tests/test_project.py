"""What surrounds the code agrees with it: versions, the changelog, the citation, lowest dependencies, templates."""

import configparser
import re
from pathlib import Path

import pytest
import yaml

from vistool.environment import __version__

ROOT = Path(__file__).parents[1]


def setup() -> configparser.ConfigParser:
    """``setup.cfg``."""
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    return config


def lower_bounds(requirements: str) -> dict[str, str]:
    """Package → lowest version, of a list in ``setup.cfg``."""
    return dict(re.findall(r'^([\w.-]+)>=([\w.]+)', requirements, re.MULTILINE))


def test_version_changelog_and_citation_agree():
    headings = re.findall(r'^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert headings[0] == ('Unreleased', '')
    released = [version for version, _ in headings[1:]]
    assert released[0] == __version__ and len(set(released)) == len(released)
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == __version__
    assert str(citation['date-released']) == headings[1][1]
    assert citation['license'] == setup()['metadata']['license']


def test_groups_of_the_changelog_are_those_of_its_form():
    groups = set(re.findall(r'^### (.+)$', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE))
    assert groups <= {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}


def test_the_lowest_versions_are_those_of_setup_cfg():
    config = setup()
    extras = config['options.extras_require']
    allowed = lower_bounds(config['options']['install_requires']) | lower_bounds(
        extras['demo'] + extras['explore'] + extras['test']
    )
    pinned = dict(re.findall(r'^([\w.-]+)==([\w.]+)$', (ROOT / '.ci' / 'lowest.txt').read_text(), re.MULTILINE))
    assert pinned == allowed


def test_the_workflow_runs_every_python_that_is_claimed():
    workflow = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())
    tried = workflow['jobs']['run']['strategy']['matrix']['python']
    claimed = re.findall(r'Python :: (3\.\d+)$', setup()['metadata']['classifiers'], re.MULTILINE)
    assert tried == claimed
    assert setup()['options']['python_requires'] == f'>={claimed[0]}'
    for job in workflow['jobs'].values():
        script = job['steps'][-1]['run']
        assert (ROOT / script).stat().st_mode & 0o100


@pytest.mark.parametrize('name', ['fault', 'feature'])
def test_a_template_asks_for_the_report_on_the_environment(name):
    form = yaml.safe_load((ROOT / f'.github/ISSUE_TEMPLATE/{name}.yml').read_text())
    fields = {field['id']: field for field in form['body']}
    assert 'python -m vistool.env' in fields['environment']['attributes']['description']
    assert any(field.get('validations', {}).get('required') for field in fields.values())
