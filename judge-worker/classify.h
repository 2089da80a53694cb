/* classify.h - what a call's end means
 *
 * The one place that decides about sending again; nothing below it (libcurl,
 * the server's words) does so by itself.  Status first, body second; an error
 * object counts under status 200 too.  The same words mean opposite things at
 * different providers ("You exceeded your current quota": no money at OpenAI,
 * tokens per minute at DashScope), so the profile has a say. */
#ifndef HA_JUDGE_WORKER_CLASSIFY_H
#define HA_JUDGE_WORKER_CLASSIFY_H

#include <stdbool.h>
#include <stdint.h>

struct ha_judge_profile;
struct ha_judge_reply;

enum ha_judge_transport {
    HA_JUDGE_TRANSPORT_DONE,     /* a whole HTTP reply */
    HA_JUDGE_TRANSPORT_NOT_SENT, /* no byte of the request's body left: free */
    HA_JUDGE_TRANSPORT_CONFIG,   /* certificate, URL or file that cannot work */
    HA_JUDGE_TRANSPORT_UNKNOWN,  /* sent, and no whole reply */
    HA_JUDGE_TRANSPORT_TOO_LONG  /* the reply was longer than we take */
};

enum ha_judge_class {
    HA_JUDGE_CLASS_REPLY,    /* the reply has a text: read it */
    HA_JUDGE_CLASS_NOT_SENT, /* again, free */
    HA_JUDGE_CLASS_ITEM,     /* this item ends: filtered, refused, too long */
    HA_JUDGE_CLASS_CONFIG,   /* a person has to mend something; items go back unharmed */
    HA_JUDGE_CLASS_WALLET,   /* the same, with money */
    HA_JUDGE_CLASS_RPM,      /* wait, fewer at a time */
    HA_JUDGE_CLASS_TPM,
    HA_JUDGE_CLASS_RAMP,      /* wait, and stay at this many at a time */
    HA_JUDGE_CLASS_TRANSIENT, /* again, as many at a time as before */
    HA_JUDGE_CLASS_UNKNOWN,   /* possibly paid; again within the cap */
    HA_JUDGE_CLASSES
};

struct ha_judge_evidence {
    enum ha_judge_transport transport;
    const char *transport_text; /* of a transport that did not end well */
    int http_status;            /* 0: none came */
    const struct ha_judge_reply *reply;
    const struct ha_judge_profile *profile;
};

/* What the text of a call that did not reach anybody begins with. */
#define HA_JUDGE_UNREACHED "the evaluator cannot be reached: "

enum { HA_JUDGE_VERDICT_BYTES = 400 };

struct ha_judge_verdict {
    enum ha_judge_class class;
    bool possibly_paid;
    char text[HA_JUDGE_VERDICT_BYTES]; /* why, for people; "" for a reply */
};

void ha_judge_classify(const struct ha_judge_evidence *evidence,
                       struct ha_judge_verdict *ret_verdict);

/* "requests per minute" ... for log lines. */
const char *ha_judge_class_name(enum ha_judge_class class);

#endif
