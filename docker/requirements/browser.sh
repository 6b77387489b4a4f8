#!/bin/sh
# Bring the browser that the tests open the reports in: `make test`. Does nothing where there is one.
#   CHROMIUM  a Chromium or Chrome of your own
set -eu
say() { printf 'browser      %s\n' "$*" >&2; }

for name in ${CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if [ -z "${CHROMIUM:-}" ] && command -v apt-get >/dev/null 2>&1 && $as_root true 2>/dev/null; then
    say "chromium from this system's packages (about 120 MB)"
    if { $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1; then
        exit 0
    fi
    say "apt-get could not bring it"
fi
say "the tests that look at the reports will fail: there is no ${CHROMIUM:-Chromium}"
say "on Debian or Ubuntu: apt-get install chromium; elsewhere set CHROMIUM to a Chromium or Chrome"
