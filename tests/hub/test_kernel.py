"""A student's kernel has no debugger, and takes nothing that it needs from the folder that it starts in."""

import subprocess
import sys


def test_it_has_no_debugger_and_its_folder_stands_in_for_nothing(root, tmp_path):
    (tmp_path / "ipykernel.py").write_text("raise SystemExit('a file of the student')", encoding="utf-8")
    script = (
        "import runpy, sys, ipykernel.kernelapp\n"
        "ipykernel.kernelapp.launch_new_instance = lambda: print(sys.path[0] == sys.argv[1], sys.modules['debugpy'])\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "runpy.run_module('spai_lab.hub.kernel', run_name='__main__')"
    )
    command = [sys.executable, "-P", "-c", script, str(tmp_path)]
    answer = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, encoding="utf-8")
    assert answer.stdout == "False None\n", answer.stderr
