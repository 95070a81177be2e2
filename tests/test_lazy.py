import subprocess
import sys


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
