#include "coordinator/hactl/cli.h"

#include <stddef.h>

const struct ha_option ha_remote_options[HA_REMOTE_OPTIONS] = {
    {"connect", "ENDPOINT", "control endpoint of the coordinator (ipc://… or tcp://…)"},
    {"dir", "DIR", "sweep directory of an embedded run (runs/NAME)"},
    {"key", "FILE", "this client's CURVE key pair, for tcp://"},
    {"server-key", "FILE", "the coordinator's public key, for tcp://"},
    {"insecure-loopback", NULL, "tcp:// on a loopback address without keys"},
};
