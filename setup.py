"The package's metadata, from settings.ini"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).resolve().parent
ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

licenses = {'apache2': 'Apache-2.0', 'mit': 'MIT', 'bsd3': 'BSD-3-Clause'}
statuses = ['', '1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable']
minor = int(cfg['min_python'].split('.')[1])
readme = here/'README.md'
lib = cfg['lib_name']

def needs(name):
    "The list of requirements under `name`"
    return cfg.get(name, '').split()

setup(
    name=lib, version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    author=cfg['author'], author_email=cfg['author_email'], license=licenses[cfg['license']], license_files=['LICENSE'],
    url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host'] + cfg['doc_baseurl'], 'Issues': cfg['git_url'] + '/issues'},
    classifiers=[
        f"Development Status :: {statuses[int(cfg['status'])]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        *[f'Programming Language :: Python :: 3.{i}' for i in range(minor, 14)]],
    packages=find_packages(include=[cfg['lib_path'], f"{cfg['lib_path']}.*"]),
    package_data={lib: ['*.pyi']},
    python_requires=f">={cfg['min_python']}",
    install_requires=needs('requirements'),
    extras_require={o: needs(f'{o}_requirements') for o in ('dev', 'jupyter', 'keras', 'apricot', 'dask', 'backbone')},
    entry_points={'console_scripts': needs('console_scripts'), 'nbdev': [f"{lib}={cfg['lib_path']}._modidx:d"]},
    zip_safe=False)
