/* answers.c - AnswersRequest: answers with their scores, for results, show and report */
#include <errno.h>
#include <string.h>

#include "coordinator/server/inside.h"
#include "coordinator/store/answer.h"

enum { PAGE = 64, PAGE_BYTES = 3 << 20 };

struct page {
    struct ha_request *q;
    struct ha_wire_answers_reply *reply;
    int64_t limit;
    size_t bytes;
    struct ha_wire_answer_row *answer;
    struct ha_wire_score_set *set;
};

static const char *keep(struct page *p, const char *text)
{
    p->bytes += strlen(text);
    return ha_scratch_text(&p->q->arena, text);
}

static int add_score(void *context, const char *dimension, int64_t value, const char *reason)
{
    struct page *p = context;
    bool reasons = p->q->message->body.answers_request.with_reasons;
    struct ha_wire_score *place =
        ha_scratch_grow(&p->q->arena, &p->set->scores, &p->set->n_scores, sizeof *place);

    if (!place)
        return -ENOMEM;
    *place = (struct ha_wire_score){.dimension = keep(p, dimension),
                                    .value = (uint32_t)value,
                                    .reason = reasons ? keep(p, reason) : ""};
    return place->dimension && place->reason ? 0 : -ENOMEM;
}

static int add_set(void *context, const struct ha_score_set_row *row)
{
    struct page *p = context;

    p->set =
        ha_scratch_grow(&p->q->arena, &p->answer->scores, &p->answer->n_scores, sizeof *p->set);
    if (!p->set)
        return -ENOMEM;
    *p->set = (struct ha_wire_score_set){
        .judge = keep(p, row->judge),
        .sample = (uint32_t)row->sample,
        .state = keep(p, row->state),
        .fault = keep(p, row->fault),
        .flagged = row->flagged,
        .identity = keep(p, row->identity),
    };
    if (!p->set->judge || !p->set->state || !p->set->fault || !p->set->identity)
        return -ENOMEM;
    return ha_store_score_each(p->q->c->store, row->item, add_score, p, NULL);
}

/* The page ends between answers; one that several cells share is never cut. */
static int add_answer(void *context, const struct ha_answer *row)
{
    struct page *p = context;
    bool text = p->q->message->body.answers_request.with_text;
    int64_t count = p->reply->n_answers;

    if (count > 0 && p->reply->answers[count - 1].answer != (uint64_t)row->id &&
        (count >= p->limit || p->bytes > PAGE_BYTES)) {
        p->reply->more = true;
        return 1;
    }
    p->answer =
        ha_scratch_grow(&p->q->arena, &p->reply->answers, &p->reply->n_answers, sizeof *p->answer);
    if (!p->answer)
        return -ENOMEM;
    *p->answer = (struct ha_wire_answer_row){
        .answer = (uint64_t)row->id,
        .cell = (uint64_t)row->cell,
        .prompt = row->prompt,
        .sample = (uint32_t)row->sample,
        .prompt_text = text ? keep(p, row->prompt_text) : "",
        .text = text ? keep(p, row->text) : "",
        .finish = keep(p, row->finish),
        .tokens = row->tokens,
        .prompt_sha256 = keep(p, row->prompt_sha256),
    };
    if (!p->answer->prompt_text || !p->answer->text || !p->answer->finish ||
        !p->answer->prompt_sha256)
        return -ENOMEM;
    return ha_store_score_set_each(p->q->c->store, row->id, row->cell, add_set, p, NULL);
}

int ha_handle_answers(struct ha_request *q, struct ha_error *err)
{
    const struct ha_wire_answers_request *ask = &q->message->body.answers_request;
    struct page p = {.q = q,
                     .reply = &q->reply.body.answers_reply,
                     .limit = ask->limit == 0 || ask->limit > PAGE ? PAGE : ask->limit};
    int64_t sweep, cell;
    int r = ha_server_find_sweep(q->c, ask->sweep, &sweep, err);

    if (r == 0)
        r = ha_server_find_cell(q->c, sweep, ask->cell, &cell, err);
    if (r < 0)
        return r;
    q->reply.kind = HA_WIRE_ANSWERS_REPLY;
    r = ha_store_answer_each(q->c->store, sweep, cell, ask->prompt, (int64_t)ask->after_answer,
                             INT64_MAX, add_answer, &p, err);
    return r == -ENOMEM ? ha_error_set(err, ENOMEM, "no memory for the reply") : r;
}
