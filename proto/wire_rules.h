/* wire_rules.h - what a value on the wire must obey */
#ifndef HA_PROTO_WIRE_RULES_H
#define HA_PROTO_WIRE_RULES_H

#include "proto/wire_table.h"

/* Check one value of a plain struct (one element of a list).  type is
 * protobuf-c's type of the field; messages are not looked into.  NULL when it
 * is right, else what is wrong with it. */
const char *wire_rule_fault(ProtobufCType type, enum wire_rule rule, const void *value);

#endif
