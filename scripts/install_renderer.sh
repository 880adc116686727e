#!/usr/bin/env bash
# Makes sure that SAPIEN finds a Vulkan device, and does as little as that needs.
#
#   an NVIDIA GPU with its Vulkan driver, or lavapipe of Mesa >= 24.3   nothing to do
#   apt and root (or sudo without a password)                           installs lavapipe; on a distribution whose
#                                                                       Mesa is older, from its backports
#   anything else                                                       says what to do; exit 0: state-only runs work
#
# The shared libraries that SAPIEN and OpenCV link against (X11, GL, GLib) are installed along the same way: a bare
# container lacks them, and without them not even the physics imports.
#
# Backports come from the mirror that apt already uses on this machine. Set SKIP_RENDERER=1 to skip all of it.
set -euo pipefail

readonly MIN_MESA="24.3"
readonly PACKAGES=(mesa-vulkan-drivers libvulkan1)
readonly LIBRARIES=(libX11.so.6 libGL.so.1 libgthread-2.0.so.0)
readonly LIBRARY_PACKAGES=(libx11-6 libgl1 libglib2.0-0)

say() { printf '%s\n' "renderer: $*"; }

# banner REASON: the renderer is missing; what still works, and what to do. Always ends the script with 0.
banner() {
  cat <<MESSAGE

================================ NO RENDERER ================================
 $1
 Still works: everything on the 'state' encoder (generate, learn, evaluate).
 Does not:    videos and image encoders; runs fall back to state-only.
 To fix it:   install a Vulkan driver that SAPIEN accepts, then run make again:
   Debian 13, Ubuntu 24.04+  apt-get install ${PACKAGES[*]}
   Debian 12                 the same packages with -t bookworm-backports
   Fedora, RHEL              dnf install mesa-vulkan-drivers vulkan-loader
   NVIDIA GPU                the driver's Vulkan part (libnvidia-gl-*, nvidia_icd.json)
   (Mesa must be ${MIN_MESA} or newer.)$(missing_libraries_note)
=============================================================================

MESSAGE
  exit 0
}

missing_libraries_note() {
  local missing
  missing="$(missing_libraries)"
  [ -z "$missing" ] || printf '\n Also missing, and needed by the physics itself: %s\n   (Debian, Ubuntu: apt-get install %s)' \
    "$(echo "$missing" | xargs)" "${LIBRARY_PACKAGES[*]}"
}

missing_libraries() {
  local name
  for name in "${LIBRARIES[@]}"; do has_library "$name" || printf '%s\n' "$name"; done
}

# at_least A B: is version A (an epoch and a suffix are dropped) at least B?
at_least() {
  local have="${1#*:}"
  have="$(printf '%s' "$have" | sed -E 's/^([0-9]+(\.[0-9]+)*).*/\1/')"
  [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$2" "$have" | sort -V | sed -n 1p)" = "$2" ]
}

# has_library PART: does the loader's cache list a file with PART in its name? (read whole: a closed pipe would end it)
has_library() {
  local cache
  cache="$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null)" || return 1
  [[ "$cache" == *"$1"* ]]
}

has_nvidia_vulkan() {
  [ -e /dev/nvidiactl ] && has_library libGLX_nvidia.so || return 1
  local folder
  for folder in /usr/share/vulkan/icd.d /etc/vulkan/icd.d /usr/local/nvidia/share/vulkan/icd.d; do
    compgen -G "$folder/nvidia*.json" >/dev/null && has_library libvulkan.so.1 && return 0
  done
  return 1
}

installed_mesa() {
  if command -v dpkg-query >/dev/null 2>&1; then
    dpkg-query -W -f '${db:Status-Status} ${Version}\n' mesa-vulkan-drivers 2>/dev/null | sed -n 's/^installed //p' | sed -n 1p
  elif command -v rpm >/dev/null 2>&1; then
    rpm -q --qf '%{VERSION}\n' mesa-vulkan-drivers 2>/dev/null | grep -E '^[0-9]' | sed -n 1p
  elif command -v pacman >/dev/null 2>&1; then
    pacman -Q vulkan-swrast 2>/dev/null | cut -d' ' -f2
  fi || true
}

has_lavapipe() {
  local version
  version="$(installed_mesa)"
  [ -n "$version" ] && at_least "$version" "$MIN_MESA" && has_library libvulkan.so.1
}

candidate() { LC_ALL=C apt-cache policy mesa-vulkan-drivers | sed -n 's/^  Candidate: //p'; }

# apt_install OPTIONS-AND-PACKAGES: waits up to two minutes for another apt to finish; refreshes the lists once if needed.
apt_install() {
  local command=("${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends
    -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@")
  "${command[@]}" || { "${AS_ROOT[@]}" apt-get update -q && "${command[@]}"; }
}

# add_backports CODENAME: adds the backports suite of the mirror that serves this release.
add_backports() {
  local codename="$1" mirror list=/etc/apt/sources.list.d/embodichain-backports.list
  mirror="$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' "Created-By: Packages" |
    awk -v name="$codename" '$2 == name && $3 == "main" {print $1; exit}')"
  [ -n "$mirror" ] || return 1
  say "adding ${codename}-backports of this machine's own mirror ($list)"
  printf 'deb %s %s-backports main\n' "$mirror" "$codename" | "${AS_ROOT[@]}" tee "$list" >/dev/null
  if ! "${AS_ROOT[@]}" apt-get update -q; then
    "${AS_ROOT[@]}" rm -f "$list"
    return 1
  fi
}

# has_driver: is there a Vulkan driver that SAPIEN accepts? Says which.
has_driver() {
  if has_nvidia_vulkan; then say "ok: NVIDIA Vulkan driver"; return 0; fi
  if has_lavapipe; then say "ok: lavapipe of Mesa $(installed_mesa)"; return 0; fi
  return 1
}

install_lavapipe() {
  local from=()
  if ! at_least "$(candidate)" "$MIN_MESA"; then
    # shellcheck disable=SC1090
    . "${OS_RELEASE:-/etc/os-release}"
    say "this release carries Mesa $(candidate), SAPIEN needs ${MIN_MESA} or newer"
    [ "${ID:-}" = debian ] || banner "This release's Mesa is too old: $(candidate)."
    add_backports "$VERSION_CODENAME" || banner "Could not add ${VERSION_CODENAME}-backports to apt."
    from=(-t "${VERSION_CODENAME}-backports")
  fi
  apt_install "${from[@]}" "${PACKAGES[@]}" || banner "apt could not install ${PACKAGES[*]}."
  has_lavapipe || banner "Mesa is '$(installed_mesa)' after the installation."
  say "installed: lavapipe of Mesa $(installed_mesa)"
}

main() {
  [ "${SKIP_RENDERER:-0}" = 0 ] || { say "skipped (SKIP_RENDERER)"; return 0; }
  local driver=0
  has_driver || driver=1
  [ "$driver" = 1 ] || [ -n "$(missing_libraries)" ] || return 0

  command -v apt-get >/dev/null 2>&1 || banner "Vulkan driver or libraries missing, and no apt to install them with."
  AS_ROOT=()
  if [ "$(id -u)" -ne 0 ]; then
    AS_ROOT=(sudo -n)
    sudo -n true 2>/dev/null || banner "Vulkan driver or libraries missing, and installing them needs root."
  fi
  if [ -z "$(candidate)" ] || [ "$(candidate)" = "(none)" ]; then
    "${AS_ROOT[@]}" apt-get update -q || say "apt-get update failed; going on with the lists at hand"
  fi
  [ -z "$(missing_libraries)" ] || apt_install "${LIBRARY_PACKAGES[@]}" ||
    banner "apt could not install ${LIBRARY_PACKAGES[*]}."
  [ "$driver" = 0 ] || install_lavapipe
}

main "$@"
