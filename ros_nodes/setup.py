"""Builds this folder as an ament_python package with colcon; pip users install the repository instead."""

from setuptools import setup

PACKAGE = "ros_nodes"
CONTRACTS = ("panda_sim", "panda_jtc", "ur5e", "servo", "so101")
NODES = ("arm", "mock_arm", "policy", "gate", "recorder", "eye")

setup(
    name=PACKAGE,
    version="0.1.0",
    packages=[PACKAGE],
    package_dir={PACKAGE: "."},
    package_data={PACKAGE: ["config/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", ["launch/deploy.launch.py"]),
        (f"share/{PACKAGE}/config", [f"config/{n}.yaml" for n in CONTRACTS]),
    ],
    install_requires=["setuptools", "robopolicy"],
    zip_safe=False,
    license="Apache-2.0",
    entry_points={"console_scripts": [f"{n}_node = {PACKAGE}.{n}_node:main" for n in NODES]},
)
