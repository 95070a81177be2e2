import subprocess
import sys

from PIL import Image

from tests.conftest import photo


def test_help_waits_for_no_heavy_import():
    code = (
        "import sys; sys.argv = ['tddsr', '--help']\n"
        "from tddsr.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'onnxruntime', 'PIL', 'pyvips', 'numpy', 'tensorboard'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_without_a_terminal_a_picture_waits_for_no_bars(tmp_path):
    Image.fromarray(photo(8, 8)).save(tmp_path / "a.png")
    code = (
        "import sys; sys.argv = ['tddsr', 'upscale', 'a.png', '--model', 'compact-small']\n"
        "from tddsr.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'rich.progress' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    assert (tmp_path / "a_x4.png").is_file()


def test_inference_never_imports_training():
    code = (
        "import sys, tddsr.upscaler, tddsr.bulk\n"
        "rooms = ('training', 'evaluation', 'report', 'metrics', 'degradation')\n"
        "names = ('tensorboard', *(f'tddsr.{room}' for room in rooms))\n"
        "unwanted = [m for m in sys.modules if m.startswith(names)]\n"
        "assert not unwanted, unwanted\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reports_and_comparisons_wait_for_no_network():
    code = (
        "import sys, tddsr.report.build\n"
        "heavy = {'torch', 'torchmetrics'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
