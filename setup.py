"""Maps configs/ into the package, so that the wheel has the configurations; all else stands in pyproject.toml."""

from setuptools import find_packages, setup

CONFIGS = "lightning_priors.configs"

setup(
    packages=[*find_packages(include=["lightning_priors", "lightning_priors.*"]), CONFIGS],
    package_dir={CONFIGS: "configs"},
    include_package_data=False,  # otherwise the folders of configurations are taken for packages
    package_data={"lightning_priors": ["py.typed"], CONFIGS: ["*/*.yaml"]},
)
