"""Maps configs/ into the package, so that the wheel has the configurations; setup.cfg cannot say it."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["lightning_priors", "lightning_priors.*"]), "lightning_priors.configs"],
    package_dir={"lightning_priors.configs": "configs"},
)
