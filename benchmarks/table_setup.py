"""Measures what it takes until a large table can be trained on: processor time and memory, imports left out.

The table has boxes, masks and groups; the pictures are not read. A process of its own sets the data module up, builds
the loaders and draws the order of the first epoch. Memory is its greatest, less what the imports alone take.

    python benchmarks/table_setup.py [--rows 1000000]
"""

import argparse
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

MEASURED = """
import re, sys, time
from pathlib import Path
from lightning_priors.data import PriorDataModule
from lightning_priors.data.sources import Table
def peak():
    return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024
imports, before = time.process_time(), peak()
data = PriorDataModule(Table(sys.argv[1]), batch_size=64)
data.setup('fit')
loader, _ = data.train_dataloader(), data.val_dataloader()
batches = sum(1 for _ in loader.batch_sampler)
print(imports, before, time.process_time() - imports, peak() - before, batches)
"""


def write_table(path: Path, rows: int) -> None:
    """Writes a table of pictures that do not exist; 4 of 5 have a box and a mask."""
    draw = random.Random(0)
    with path.open("w") as file:
        file.write("path,label,split,mask,group,x0,y0,x1,y1\n")
        for number in range(rows):
            kind = draw.randrange(200)
            split = draw.choice(["train"] * 8 + ["val", "test"])
            name = f"class_{kind:03}/picture_{number:07}"
            x, y = draw.uniform(0, 50), draw.uniform(0, 50)
            mask, box = f"masks/{name}.png", f"{x:.1f},{y:.1f},{x + 20:.1f},{y + 30:.1f}"
            place = f"{mask},{'land' if number % 2 else 'water'},{box}" if draw.random() < 0.8 else ",land,,,,"
            file.write(f"images/{name}.jpg,class {kind:03},{split},{place}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        write_table(Path(folder, "table.csv"), options.rows)
        shown = subprocess.run([sys.executable, "-c", MEASURED, folder], capture_output=True, text=True, check=True)
        import_seconds, import_memory, seconds, memory, batches = map(float, shown.stdout.split())
    print(f"{options.rows:,} rows, {batches:,.0f} batches of an epoch")
    print(f"{'':16}{'seconds':>10}{'MiB':>8}")
    print(f"{'imports':16}{import_seconds:10.1f}{import_memory:8.0f}")
    print(f"{'set-up':16}{seconds:10.1f}{memory:8.0f}")


if __name__ == "__main__":
    main()
