"""What makes torch believe in two CUDA devices: a device guard and hooks, compiled with g++.

Autograd, autocast and `Module.to` ask for them in C++. Torch looks for its hooks when it is
imported, so `register` comes first, in a process of its own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path

DEVICES = 2
_SOURCE = r"""
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
using namespace c10; using namespace c10::impl;
static thread_local DeviceIndex current = 0;
struct Guard final : DeviceGuardImplInterface {
  static Device at(DeviceIndex i) { return Device(DeviceType::CUDA, i < 0 ? current : i); }
  static Stream on(Device d) { return Stream(Stream::DEFAULT, at(d.index())); }
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device d) const override {
    Device before = at(current); current = at(d.index()).index(); return before; }
  Device getDevice() const override { return at(current); }
  void setDevice(Device d) const override { current = at(d.index()).index(); }
  void uncheckedSetDevice(Device d) const noexcept override { current = at(d.index()).index(); }
  Stream getStream(Device d) const override { return on(d); }
  Stream getDefaultStream(Device d) const override { return on(d); }
  Stream exchangeStream(Stream s) const override { return s; }
  DeviceIndex deviceCount() const noexcept override { return DEVICES; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
};
namespace at {
struct CUDAHooks : CUDAHooksInterface {
  CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return false; }
  DeviceIndex deviceCount() const override { return DEVICES; }
  int getNumGPUs() const override { return DEVICES; }
  DeviceIndex current_device() const override { return current; }
  DeviceIndex getCurrentDevice() const override { return current; }
  bool isPinnedPtr(const void*) const override { return false; }
  void deviceSynchronize(DeviceIndex) const override {}
};
REGISTER_CUDA_HOOKS(CUDAHooks);
}
static DeviceGuardImplRegistrar registrar(DeviceType::CUDA, new Guard());
"""


def _torch() -> Path:
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def compile_guard(folder: Path) -> Path:
    """The library, some seconds' work."""
    source, library, torch = folder / "guard.cpp", folder / "guard.so", _torch()
    source.write_text(_SOURCE)
    options = ["-std=c++20", "-shared", "-fPIC", f"-DDEVICES={DEVICES}", f"-I{torch}/include"]
    libraries = [f"-L{torch}/lib", "-ltorch_cpu", "-lc10"]
    subprocess.run(["g++", *options, source, "-o", library, *libraries], check=True)
    return library


def register(library: Path) -> None:
    """Load it, before torch is imported."""
    assert "torch" not in sys.modules, "torch looks for its CUDA hooks when it is imported"
    ctypes.CDLL(str(_torch() / "lib" / "libtorch_cpu.so"), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(library))
