# Shared by the scripts beside it; sourced, not run. Needs bash.
# shellcheck shell=bash disable=SC2034

# What the library and the command are built with, as Debian 12 and Ubuntu 24.04 name it.
readonly BUILD_PACKAGES=(g++ cmake ninja-build pkg-config nlohmann-json3-dev libspdlog-dev libcli11-dev
                         libpcre2-dev libutf8proc-dev)

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# packages_missing NAME... prints those that dpkg does not know as installed.
packages_missing() {
  local package status
  for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || echo "$package"
  done
}

# apt_get ARGS... runs apt-get as root, with nobody at the keyboard.
apt_get() {
  local command=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@")
  ((EUID == 0)) || command=(sudo "${command[@]}")
  echo "+ ${command[*]}"
  "${command[@]}" </dev/null
}

# apt_knows NAME... succeeds when the package lists offer every one of them.
apt_knows() {
  local package
  for package in "$@"; do
    LC_ALL=C apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [^(]' || return 1
  done
}

# install_packages NAME... installs with apt what is missing, and says so. The lists are fetched only when they do not
# know a package, or know it under an address that is gone.
install_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "No apt here; going on in the hope that these are installed: $*"
    return
  fi
  local missing
  mapfile -t missing < <(packages_missing "$@")
  if ((${#missing[@]} == 0)); then
    echo "Every package is installed: $*"
    return
  fi
  say "Installing with apt: ${missing[*]}"
  if ((EUID != 0)) && ! command -v sudo >/dev/null; then
    fail "not root and no sudo; as root, run: apt-get install ${missing[*]}"
  fi
  if apt_knows "${missing[@]}" && apt_get install --no-install-recommends "${missing[@]}"; then
    return
  fi
  apt_get update
  apt_get install --no-install-recommends "${missing[@]}"
}

# configure PRESET OPTION... writes the build folder of a preset of CMakePresets.json.
configure() {
  local preset=$1
  shift
  local options=("$@")
  if command -v ccache >/dev/null; then
    options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  cmake --preset "$preset" "${options[@]}"
}

build() {
  cmake --build "$@" --parallel "$(nproc)"
}
