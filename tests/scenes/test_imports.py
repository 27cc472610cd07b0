"""Importing the package stays light: OpenCV is loaded by the first picture."""

import subprocess
import sys


def test_importing_loads_neither_opencv_nor_torch() -> None:
    code = "import sys, dlv3deploy.scenes; print(sorted({'cv2', 'torch', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
