/* commands.h - the program's subcommands that need no coordinator */
#ifndef HA_JUDGE_WORKER_COMMANDS_H
#define HA_JUDGE_WORKER_COMMANDS_H

struct ha_error;

/* `show`: the exact first request of a judge, its key masked, as JSON. */
int ha_judge_command_show(int argc, char **argv, struct ha_error *err);

/* `reparse`: raw replies in, outcomes out, both JSON Lines. */
int ha_judge_command_reparse(int argc, char **argv, struct ha_error *err);

#endif
