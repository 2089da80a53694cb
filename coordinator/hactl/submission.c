#include "coordinator/hactl/submission.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "coordinator/hactl/grid_input.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/transfer.h"

int ha_submission_name(const struct ha_grid_input *input, const char *given, const char **ret_name,
                       struct ha_error *err)
{
    const char *name = given ? given : input->sweep->general.name;

    if (!ha_sweep_name_valid(name))
        return ha_error_set(err, EINVAL,
                            "--name %.60s: a sweep's name has letters, digits, \".\", \"_\", \"-\" "
                            "or \"+\" and does not begin with \".\"",
                            name);
    *ret_name = name;
    return 0;
}

/* plans [model_count]: texts that the submit holds, the caller's to free. */
static int fill(struct ha_wire_submit *submit, const struct ha_grid_input *input, char **plans,
                struct ha_error *err)
{
    const struct ha_sweep *sweep = input->sweep;

    submit->models = ha_calloc(sweep->model_count, sizeof(*submit->models));
    submit->files = ha_calloc(input->n_files, sizeof(*submit->files));
    submit->overrides = ha_calloc(input->n_overrides, sizeof(*submit->overrides));
    if (!submit->models || !submit->files || !submit->overrides)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    for (int64_t i = 0; i < sweep->model_count; i++) {
        plans[i] = ha_json_dump(input->models[i].plan, HA_JSON_COMPACT);
        if (!plans[i])
            return ha_error_set(err, ENOMEM, "hactl: out of memory");
        submit->models[submit->n_models++] =
            (struct ha_wire_submit_model){.plan_json = plans[i],
                                          .name = sweep->models[i].name,
                                          .path = input->models[i].dir,
                                          .digest = input->models[i].digest,
                                          .tokenizer_digest = input->models[i].tokenizer_digest,
                                          .layers = (uint32_t)input->models[i].layers,
                                          .family = input->models[i].family};
    }
    for (int64_t i = 0; i < input->n_files; i++)
        submit->files[submit->n_files++] =
            (struct ha_wire_submit_file){.path = input->files[i].name,
                                         .sha256 = input->files[i].sha256,
                                         .size = input->files[i].size,
                                         .split = input->files[i].split};
    for (int64_t i = 0; i < input->n_overrides; i++)
        submit->overrides[submit->n_overrides++] = input->overrides[i];
    return 0;
}

int ha_submission_send(struct ha_link *link, const struct ha_grid_input *input, const char *name,
                       bool extend, struct ha_wire_message **ret_reply, struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_SUBMIT}, *reply = NULL;
    struct ha_wire_submit *submit = &request.body.submit;
    char key[HA_LINK_KEY_BYTES], **plans = ha_calloc(input->sweep->model_count, sizeof(*plans));
    int r = plans ? ha_link_new_key(key, err) : ha_error_set(err, ENOMEM, "hactl: out of memory");

    *submit = (struct ha_wire_submit){.key = key,
                                      .name = name,
                                      .toml = input->text,
                                      .base_dir = input->base_dir,
                                      .extend = extend};
    if (r == 0)
        r = fill(submit, input, plans, err);
    for (int64_t i = 0; r == 0 && i < input->n_files; i++)
        r = ha_transfer_put(link, input->files[i].path, input->files[i].sha256,
                            input->files[i].size, err);
    if (r == 0)
        r = ha_link_call(link, &request, HA_WIRE_SUBMIT_REPLY, 0, &reply, err);
    if (r == 0 && strcmp(reply->body.submit_reply.outcome, "refused") == 0) {
        r = ha_error_set(err, EINVAL, "the grid is refused: %s",
                         reply->body.submit_reply.n_notes > 0 ? reply->body.submit_reply.notes[0]
                                                              : "no reason was given");
        ha_wire_message_destroy(reply);
    }
    for (int64_t i = 0; plans && i < input->sweep->model_count; i++)
        free(plans[i]);
    free(plans);
    free(submit->models);
    free(submit->files);
    free(submit->overrides);
    if (r == 0)
        *ret_reply = reply;
    return r;
}

void ha_submission_print(const struct ha_wire_message *message)
{
    const struct ha_wire_submit_reply *reply = &message->body.submit_reply;

    printf("sweep %s (%llu) %s: %lld cells\n", reply->name, (unsigned long long)reply->sweep,
           reply->outcome, (long long)reply->cells);
    for (int64_t i = 0; i < reply->n_notes; i++)
        printf("  %s\n", reply->notes[i]);
    (void)fflush(stdout);
}
